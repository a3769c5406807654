"""No false alarm: what is exported passes verify, its claims, and a comparison with a fresh export of itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from perceiver_deploy.api.verify import verify
from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose.bisection import bisect
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces

from . import subjects
from .reweighted import reweighted

PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic")
ARCHITECTURES: dict[str, Callable[[int], Blueprint]] = {
    "perceiver": subjects.perceiver,
    "wide layer": lambda seed: subjects.layer(0, seed),
    "gated layer": lambda seed: subjects.layer(1, seed),
    "small layer": lambda seed: subjects.layer(2, seed),
}
SEEDS = {"perceiver": 2, "wide layer": 5, "gated layer": 5, "small layer": 5}
BUNDLES = [(name, seed, p) for name, seeds in SEEDS.items() for seed in range(1, seeds + 1) for p in PRECISIONS]


@cache
def base(name: str) -> tuple[Blueprint, SharedTraces]:
    """An architecture with the weights that it is traced with."""
    return ARCHITECTURES[name](0), SharedTraces()


def test_there_are_fifty_of_them() -> None:
    assert len(BUNDLES) > 50


@pytest.mark.xdist_group("healthy")
@pytest.mark.parametrize(("name", "seed", "precision"), BUNDLES)
def test_a_healthy_bundle_raises_no_alarm(name: str, seed: int, precision: str, tmp_path: Path) -> None:
    source = ARCHITECTURES[name](seed)
    tracer = reweighted(*base(name))
    export_bundle(source, tmp_path / "bundle", precision, tracer=tracer)
    verification = verify(tmp_path / "bundle")
    assert verification.breaches == ()
    assert [report for report in verification.parity.reports if not report.passed] == []
    found = bisect(tmp_path / "bundle", source, tracer=tracer)
    assert found.diagnoses == ()
    assert found.compared > 0
