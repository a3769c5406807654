"""One path: a stage that is added in one place runs wherever components become graphs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import perceiver_deploy as pd
from perceiver_exporters import exporter
from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose.bisection import bisect
from perceiver_exporters.export import export_bundle
from perceiver_exporters.exporter import Exporter, Records, Stage, Tracer
from perceiver_exporters.precision.options import Budget, QuantizationOptions, Run

MAX_FUNCTIONS = 20


class Dummy:
    """A stage that counts."""

    def __init__(self) -> None:
        self.runs = self.checks = 0

    def run(self, _: Exporter, records: Records) -> Records:
        self.runs += 1
        return records

    def check(self, _: Exporter) -> None:
        self.checks += 1


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> Dummy:
    stage = Dummy()
    added = Stage("dummy", stage.run, stage.check, repeated=True)
    monkeypatch.setattr(exporter, "STAGES", (*exporter.STAGES, added))
    return stage


def test_a_stage_runs_in_exports_and_bisections(
    dummy: Dummy, blueprint: Blueprint, tracer: Tracer, tmp_path: Path
) -> None:
    export_bundle(blueprint, tmp_path / "b", tracer=tracer)
    assert (dummy.runs, dummy.checks) == (1, 1)
    assert bisect(tmp_path / "b", blueprint, backend="onnxruntime", tracer=tracer).passed
    assert (dummy.runs, dummy.checks) == (2, 2)


def test_a_dry_run_checks_it_and_traces_nothing(dummy: Dummy, tmp_path: Path) -> None:
    pd.dry_run("fashion-perceiver", tmp_path / "b", precision="int8")
    assert (dummy.runs, dummy.checks) == (0, 1)


def test_it_runs_in_every_trial_of_a_placement_search(
    dummy: Dummy, blueprint: Blueprint, tracer: Tracer, tmp_path: Path
) -> None:
    lost = iter([0.0, 0.5, 1.0, 1.0])  # of the model, then of each trial

    def score(_: Run) -> Mapping[str, float]:
        return {"logits": 1.0 - next(lost, 0.0)}

    options = QuantizationOptions(smooth=False, budget=Budget(1.0, score))
    export_bundle(blueprint, tmp_path / "b", "int8", tracer=tracer, quantization=options)
    assert dummy.runs > 3


def test_few_functions_hand_the_blueprint_on(blueprint: Blueprint, tracer: Tracer, tmp_path: Path) -> None:
    """Neither it nor the exporter that holds it is threaded through the layers below."""
    seen: set[str] = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and "perceiver_" in code.co_filename:
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(isinstance(frame.f_locals.get(name), (Blueprint, Exporter)) for name in names):
                seen.add(f"{Path(code.co_filename).name}:{code.co_name}")

    sys.setprofile(look)
    try:
        export_bundle(blueprint, tmp_path / "b", "int8", tracer=tracer)
    finally:
        sys.setprofile(None)
    assert 3 < len(seen) <= MAX_FUNCTIONS, sorted(seen)
