"""`perceiver-export advise`: candidates, the choice among them, and the commands that make it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from perceiver_deploy.api.advice.candidate import THIS_MACHINE, Candidate, Limits, choice, pareto
from perceiver_deploy.api.advise import Advice, advise
from perceiver_deploy.cli.main import group
from perceiver_runtime import UsageError
from perceiver_runtime.bundle import load_bundle

pytestmark = pytest.mark.xdist_group("cli")
BASE = Candidate(THIS_MACHINE, "fp32", "onnxruntime", 1, 10.0, 9.8, 10.2, False, 0.0, 1e-6, 100, 50, True)
FAST = replace(BASE, precision="int8", latency_ms=4.0, low_ms=3.9, high_ms=4.1, points_lost=0.4, relative_l2=1e-2)
LEAN = replace(BASE, precision="fp16", latency_ms=10.1, low_ms=9.9, high_ms=10.3, points_lost=0.1, memory_bytes=60)
WORSE = replace(BASE, backend="openvino", latency_ms=12.0, low_ms=11.0, high_ms=13.0)


def test_what_nothing_betters() -> None:
    assert pareto([BASE, FAST, LEAN, WORSE]) == (FAST, BASE, LEAN)


@pytest.mark.parametrize(
    ("limits", "chosen"),
    [
        (Limits(), FAST),
        (Limits(drop_points=0.2), BASE),  # LEAN is as fast, but loses more
        (Limits(memory_bytes=80), LEAN),
        (Limits(latency_ms=5.0, drop_points=0.2), None),
    ],
)
def test_the_fastest_within_the_limits(limits: Limits, chosen: Candidate | None) -> None:
    assert choice([BASE, FAST, LEAN, WORSE], limits) == chosen


def test_of_equally_fast_ones_the_more_accurate() -> None:
    close = replace(FAST, latency_ms=3.95, low_ms=3.85, points_lost=0.9)
    assert choice([close, FAST], Limits()) == FAST


def test_forecasts_are_in_order_though_their_ranges_overlap() -> None:
    slow = replace(BASE, forecast=True, latency_ms=2.0, low_ms=0.1, high_ms=2.0)
    fast = replace(FAST, forecast=True, latency_ms=1.9, low_ms=0.09, high_ms=1.9)
    assert choice([slow, fast], Limits()) == fast


def test_what_is_not_known_keeps_no_limit() -> None:
    unknown = replace(BASE, points_lost=None, memory_bytes=None)
    assert unknown.exceeds(Limits(drop_points=1.0, memory_bytes=1000)) == ("accuracy", "memory")
    assert unknown.exceeds(Limits()) == ()
    assert replace(BASE, verified=False).exceeds(Limits()) == ("tolerance",)


@pytest.mark.parametrize(("name", "value"), [("latency_ms", 0.0), ("memory_bytes", 0), ("drop_points", math.nan)])
def test_limits_that_nothing_keeps_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match="expected a number above"):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def advice(tmp_path_factory: pytest.TempPathFactory) -> Advice:
    folder = tmp_path_factory.mktemp("advice")
    found = advise("fashion-perceiver", precisions=["fp16"], rounds=5, max_drop=1.0, keep=folder)
    assert load_bundle(folder / "fp16").manifest.precision == "fp16"
    return found


def test_candidates_are_measured(advice: Advice) -> None:
    tried = [(candidate.precision, candidate.backend) for candidate in advice.candidates]
    assert len(set(tried)) == len(tried)
    assert ("fp16", "onnxruntime") in tried
    for candidate in advice.candidates:
        assert candidate.low_ms <= candidate.latency_ms <= candidate.high_ms
        assert not candidate.forecast
        assert candidate.memory_bytes is None or candidate.memory_bytes > 1e7
        assert candidate.points_lost is not None
        assert abs(candidate.points_lost) < 0.5
    (chosen,) = advice.chosen
    assert chosen in advice.pareto
    export, bench = advice.commands
    assert export == "perceiver-export export fashion-perceiver -o bundle --precision fp16"
    assert re.fullmatch(r"perceiver-run bench bundle --backend \S+ --threads \d+", bench)


@pytest.mark.parametrize(("kept", "code"), [(True, 0), (False, 1)])
def test_the_command(advice: Advice, monkeypatch: pytest.MonkeyPatch, kept: bool, code: int) -> None:
    made = advice if kept else replace(advice, limits=Limits(latency_ms=1e-9), chosen=(), commands=())
    monkeypatch.setattr("perceiver_deploy.api.advise.advise", lambda *_, **__: made)
    done = CliRunner().invoke(group, ["advise", "fashion-perceiver", "--max-latency", "5"], standalone_mode=False)
    assert done.exception is None
    assert done.return_value == code
    words = " ".join(done.stdout.split())
    assert ("FAILED: nothing is within the limits" in words) is not kept
    assert ("not: latency" in words) is not kept
    as_json = CliRunner().invoke(group, ["advise", "fashion-perceiver", "--json"], standalone_mode=False)
    assert len(json.loads(as_json.stdout)["candidates"]) == len(advice.candidates)


def test_boards_are_forecast(tmp_path: Path) -> None:
    arguments = ["advise", "fashion-perceiver", "--target", "jetson-orin", "--board", "AGX Orin 64GB", "-q"]
    done = CliRunner().invoke(group, [*arguments, "--precision", "fp16", "-o", str(tmp_path)], standalone_mode=False)
    assert done.exception is None
    assert done.return_value == 0
    words = " ".join(done.stdout.split())
    assert "FORECAST latency and memory, accuracy measured on" in words
    assert re.search(r"AGX Orin fp16 [\d.]+ to [\d.]+ ", words)
    assert "perceiver-export build bundle --target jetson-orin" in words


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="expected cpu, which is measured here, or a target with boards"):
        advise("fashion-perceiver", target="cuda")
    with pytest.raises(UsageError, match=r"boards \(--board\): expected Orin Nano.*did you mean AGX Orin 64GB"):
        advise("fashion-perceiver", target="jetson-orin", boards=["AGX Orin"])
    with pytest.raises(UsageError, match="target cpu does not compute in fp8"):
        advise("fashion-perceiver", precisions=["fp8"])
    with pytest.raises(UsageError, match="has no labelled samples"):
        advise("perceiver-pytorch-io", max_drop=1.0)
