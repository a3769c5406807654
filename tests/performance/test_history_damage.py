"""Histories of `bench --compare` with times that no run has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fuzz.targets.reading import example

from perceiver_deploy.api.bench import BenchmarkReport
from perceiver_deploy.api.history import read
from perceiver_runtime.errors import FeedError


@pytest.mark.parametrize("times", [[], [0.0, 1.0, 1.0], [1.5, 1.5], [1e289] * 3, [-1.0] * 3])
def test_times_that_no_run_has(tmp_path: Path, times: list[float]) -> None:
    record = example(BenchmarkReport)
    path = tmp_path / "history"
    path.write_text(json.dumps(record))
    assert len(read(path)) == 1
    record["session"]["samples"] = times
    path.write_text(json.dumps(record))
    with pytest.raises(FeedError, match=r"line 1: .*of every peer, of 1e-09 to 1e"):
        read(path)
