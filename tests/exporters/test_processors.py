"""An export decides alike on every processor: layers kept, scale migration, and scales within rounding."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import processors
import pytest

EMULATOR = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
HASWELL = [str(EMULATOR), "-cpu", "Haswell"]
"""AVX2, and neither AVX-512 nor VNNI."""


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processors.save_traces(tmp_path_factory.mktemp("traces"))


@pytest.fixture(scope="module")
def here(traces: Path) -> dict[str, Any]:
    return elsewhere(traces, [], {})


def elsewhere(traces: Path, emulator: list[str], variables: dict[str, str]) -> dict[str, Any]:
    """What is decided in a process of its own."""
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [*emulator, str(Path(sys.executable).resolve()), processors.__file__, str(traces)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["layers"] == other["layers"]
    assert one["order"] == other["order"]
    assert list(one["tried"]) == list(other["tried"])
    assert one["scales"].keys() == other["scales"].keys()
    for name, scale in one["scales"].items():
        np.testing.assert_allclose(scale, other["scales"][name], rtol=1e-5, err_msg=name)


def test_there_is_something_to_decide(here: dict[str, Any]) -> None:
    smoothed, kept = zip(*((first, rest) for first, *rest in here["layers"].values()), strict=True)
    assert set(smoothed) == {False, True}
    assert 0 < sum(map(len, kept)) < len(here["order"])


def test_pytorchs_kernels_do_not_decide(traces: Path, here: dict[str, Any]) -> None:
    assert_alike(here, elsewhere(traces, [], {"ATEN_CPU_CAPABILITY": "default"}))


@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-x86_64-static (Debian: qemu-user-static)")
def test_an_older_processor_decides_alike(traces: Path, here: dict[str, Any]) -> None:
    assert_alike(here, elsewhere(traces, HASWELL, {}))
