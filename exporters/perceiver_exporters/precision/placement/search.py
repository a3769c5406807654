"""Placement: which layers stay in FP32 so that a quantised model meets its accuracy budget.

The sensitivity of a layer is the error of the pipeline's outputs on the golden samples when it alone is quantised, as
emulated. Layers are kept in FP32 in that order, the most sensitive first: bundles with 0, 1, 2, 4, ... of them are
built and scored until one meets the budget, then the number is bisected. The Pareto table has all of these points.

Decisions do not depend on the processor: bundles are scored in exact arithmetic, and errors below the differences
between processors count as equal. Latencies are the target's own and decide nothing.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from perceiver_exporters.component import Cut
from perceiver_exporters.precision.integers.layers import layer_of, weighted
from perceiver_exporters.precision.integers.plan import Plan
from perceiver_exporters.precision.integers.scheme import Scheme
from perceiver_exporters.precision.options import Budget
from perceiver_exporters.precision.precision import Measured, Precision
from perceiver_exporters.reference import Reference
from perceiver_runtime import Session, open_session
from perceiver_runtime.errors import CheckError
from perceiver_runtime.format.ranges import batch_within
from perceiver_runtime.golden import GoldenSample
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.progress import report, track

EXACT = "onnxruntime-exact"
"""Backend that computes quantised products as the graph defines them, on any processor."""
ROUNDS = 20
SILENT = 2.0**-20
"""Errors below this are rounding errors of the golden samples, which are stored in FP32."""


@dataclass(frozen=True)
class Trial:
    """`write` makes a bundle of a plan in an empty directory; it is timed on `backend`."""

    write: Callable[[Plan, Path], object]
    backend: str


@dataclass(frozen=True)
class Sensitivity:
    """Error of the pipeline's outputs (largest relative L2, to 3 digits) when this layer alone is quantised."""

    component: str
    layer: str
    error: float


@dataclass(frozen=True)
class Point:
    """One placement, measured: `error` and `milliseconds` on golden samples, `lost` points by score, `bytes` of graphs.

    `kept` counts the first layers of the sensitivity order; time is a median of runs of one row.
    """

    kept: int
    error: float
    lost: Mapping[str, float]
    bytes: int
    milliseconds: float


@dataclass(frozen=True)
class Pareto:
    """All placements that were tried, by layers kept, and which of them was `chosen`.

    `reference` has the scores of the model itself: shares of which a larger one is better.
    """

    budget: float
    chosen: int
    order: tuple[Sensitivity, ...]
    points: tuple[Point, ...]
    reference: Mapping[str, float] = field(default_factory=dict)


def search(
    measured: Measured, plan: Plan, precision: Precision, scheme: Scheme, budget: Budget, trial: Trial
) -> tuple[Plan, Pareto]:
    """The plan that keeps the fewest layers (in order of sensitivity) within the budget, and all that was tried.

    Raises:
        CheckError: Not even all layers in FP32 are within the budget.
    """
    order = sensitivities(measured, plan, precision, scheme)
    reference = Reference(measured.cut)
    names = measured.cut.pipeline.shown
    expected = budget.score(lambda feeds, outputs: {o: reference.run(feeds).values[names[o]] for o in outputs})
    tried: dict[int, Point] = {}

    def fits(kept: int) -> bool:
        if kept not in tried:
            tried[kept] = _measure(keep(plan, order[:kept]), kept, measured.golden, budget, expected, trial)
            lost = ", ".join(f"{name} {points:+.2f}" for name, points in tried[kept].lost.items())
            report(f"placement: {kept} of {len(order)} layers in FP32: points lost: {lost}")
        return max(tried[kept].lost.values()) <= budget.points + 1e-9

    chosen = _fewest(len(order), fits)
    if chosen is None:
        raise CheckError(
            f"accuracy budget of {budget.points:g} points: even with all {len(order)} layers in FP32 "
            f"{max(tried[len(order)].lost.values()):.2f} are lost; allow more, or export fp32"
        )
    points = tuple(tried[kept] for kept in sorted(tried))
    return keep(plan, order[:chosen]), Pareto(budget.points, chosen, order, points, expected)


def sensitivities(measured: Measured, plan: Plan, precision: Precision, scheme: Scheme) -> tuple[Sensitivity, ...]:
    """All quantised layers, the most sensitive first."""
    cut = measured.cut
    layers = [
        (name, layer)
        for name, graph in measured.graphs.items()
        for layer in (*_layers(graph), *sorted(plan[name].attention))
        if layer not in plan[name].kept
    ]
    found = []
    for component, layer in track(layers, "placement: sensitivity of layers"):
        others = [Sensitivity(c, other, 0.0) for c, other in layers if (c, other) != (component, layer)]
        scope = precision.emulate(cut, (), scheme, keep(plan, others))
        error = _emulated_error(Reference(cut, scope=scope), cut, measured.golden)
        found.append(Sensitivity(component, layer, float(f"{error:.2e}") if error > SILENT else 0.0))
    return tuple(sorted(found, key=lambda s: (-s.error, s.component, s.layer)))


def keep(plan: Plan, layers: Sequence[Sensitivity]) -> Plan:
    """The plan with these layers in FP32 as well."""
    return {
        name: dataclasses.replace(each, kept=each.kept | {s.layer for s in layers if s.component == name})
        for name, each in plan.items()
    }


def _layers(graph: ir.Model) -> list[str]:
    return list(dict.fromkeys(layer_of(node) for node in weighted(graph.graph)))


def _emulated_error(reference: Reference, cut: Cut, golden: Sequence[GoldenSample]) -> float:
    worst = 0.0
    for sample in golden:
        values = reference.run(sample.feeds).values
        outputs = {spec.name for spec in cut.pipeline.outputs}
        worst = max(
            worst, *(relative_l2(sample.values[n], values[v]) for n, v in cut.pipeline.shown.items() if n in outputs)
        )
    return worst


def _fewest(total: int, fits: Callable[[int], bool]) -> int | None:
    """The least number that fits, if fitting is a matter of more; None if not even all do."""
    failed, kept = -1, 0
    while not fits(kept):
        if kept == total:
            return None
        failed, kept = kept, min(max(1, 2 * kept), total)
    while kept - failed > 1:
        middle = (failed + kept) // 2
        failed, kept = (failed, middle) if fits(middle) else (middle, kept)
    return kept


def _measure(
    plan: Plan, kept: int, golden: Sequence[GoldenSample], budget: Budget, expected: Mapping[str, float], trial: Trial
) -> Point:
    with tempfile.TemporaryDirectory() as folder:
        trial.write(plan, Path(folder))
        with open_session(folder, EXACT, check_finite=False) as session:
            scores = budget.score(session.run)
            error = max(_session_error(session, sample) for sample in golden)
        with open_session(folder, trial.backend, check_finite=False) as session:
            milliseconds = _milliseconds(session, golden[0])
        return Point(
            kept=kept,
            error=error,
            lost={name: 100 * (expected[name] - scores[name]) for name in expected},
            bytes=sum(path.stat().st_size for path in Path(folder, "onnx").iterdir()),
            milliseconds=milliseconds,
        )


def _session_error(session: Session, sample: GoldenSample) -> float:
    got = session.run(sample.feeds)
    return max(relative_l2(sample.values[name], array) for name, array in got.items())


def _milliseconds(session: Session, sample: GoldenSample) -> float:
    rows = batch_within(session.manifest.profiles, 1)
    row = {name: array[:rows] for name, array in sample.feeds.items()}
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        session.run(row)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)
