"""The short part of `python tests/fuzz/readers.py`: every reader on some damaged inputs."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from perceiver_runtime.errors import PerceiverError

pytest.importorskip("PIL")
from fuzz.readers import fuzz
from fuzz.targets import TARGETS

SHORT = 10
"""Inputs of a target for each of its share."""


@pytest.mark.parametrize("name", TARGETS)
def test_readers_answer_with_typed_errors(name: str) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGPROF)}
    try:
        found = fuzz(name, min(SHORT * TARGETS[name][1], 100), seed=0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (found["untyped"], found["hangs"]) == (0, 0), found["sites"]
    assert found["typed"] > 0


def test_inputs_are_repeatable(tmp_path: Path) -> None:
    """A site's number names its input."""
    once = TARGETS["ranges"][0](tmp_path)
    answers = []
    for _ in range(2):
        with pytest.raises(PerceiverError) as error:
            once(random.Random("0 ranges 0"))
        answers.append(str(error.value))
    assert answers[0] == answers[1]
