"""The demo: the shipped image classifier at three precisions, each verified, evaluated and timed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from perceiver_deploy.api.bench import TORCH, BenchmarkReport, bench
from perceiver_deploy.api.evaluate import EvaluationReport, evaluate_bundle
from perceiver_deploy.api.verify import verify
from perceiver_deploy.sources.source import blueprint, resolve
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_runtime import open_session
from perceiver_runtime.benchmark.latency import measure
from perceiver_runtime.benchmark.report import LatencyReport
from perceiver_runtime.benchmark.statistics import Distribution
from perceiver_runtime.evaluation.metrics import ClassificationMetrics
from perceiver_runtime.format.outputs import check_directory
from perceiver_runtime.format.staging import check_destination
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.measure.compare import ParityReport
from perceiver_runtime.measure.verify import PIPELINE
from perceiver_runtime.progress import report

SOURCE = "fashion-perceiver"
PRECISIONS = ("fp32", "fp16", "int8")
MAX_DROP_POINTS = {"fp32": 0.0, "fp16": 0.1, "int8": 1.0}
THREADS = 1  # small models run fastest on one thread; both sides get the same


@dataclass(frozen=True)
class DemoRow:
    """One component, or the whole pipeline, at one precision. Accuracy and speed-up belong to the pipeline alone."""

    precision: str
    component: str
    max_abs: float
    rel_l2: float
    cosine: float
    tolerance: float
    passed: bool
    p50_ms: float
    p95_ms: float
    megabytes: float
    speedup: float | None = None
    accuracy: float | None = None
    accuracy_difference: float | None = None


@dataclass(frozen=True)
class DemoReport:
    """All rows, and whether every parity check and accuracy budget passed."""

    rows: tuple[DemoRow, ...]
    parameters: int
    samples: int
    reference_accuracy: float
    eager_p50_ms: float
    machine: str
    passed: bool


@dataclass(frozen=True)
class _Measured:
    manifest: Manifest
    parity: tuple[ParityReport, ...]
    parity_passed: bool
    evaluation: EvaluationReport[ClassificationMetrics]
    latency: LatencyReport
    speed: BenchmarkReport

    @property
    def points_lost(self) -> float:
        """Accuracy lost against the reference, in points."""
        return 100 * (self.evaluation.reference.accuracy - self.evaluation.deployed.accuracy)


def demo(out: str | Path = "demo") -> DemoReport:
    """Export the shipped image classifier at each precision; verify, evaluate and time each bundle.

    Args:
        out: Directory in which the bundles are written; those of an earlier demo are replaced.

    Returns:
        One row for each component, and the whole pipeline, at each precision.

    Raises:
        UsageError: `out` can't be a directory.
    """
    out = Path(out)
    check_directory(out)
    for precision in PRECISIONS:
        check_destination(out / f"{SOURCE}-{precision}", overwrite=True)
    made, traces = blueprint(resolve(SOURCE)), SharedTraces()
    measured = {precision: _measure(out, precision, made, traces) for precision in PRECISIONS}
    first = measured[PRECISIONS[0]]
    return DemoReport(
        rows=tuple(row for m in measured.values() for row in _rows(m)),
        parameters=sum(c.parameters for c in first.manifest.components),
        samples=first.evaluation.samples,
        reference_accuracy=first.evaluation.reference.accuracy,
        eager_p50_ms=first.speed.peers[TORCH].p50,
        machine=first.latency.machine,
        passed=all(m.parity_passed and m.points_lost <= MAX_DROP_POINTS[p] + 1e-9 for p, m in measured.items()),
    )


def _measure(out: Path, precision: str, made: Blueprint, traces: SharedTraces) -> _Measured:
    bundle = out / f"{SOURCE}-{precision}"
    report(f"[{precision}] export")
    manifest = export_bundle(made, bundle, precision, overwrite=True, tracer=traces)
    report(f"[{precision}] verify, evaluate, time")
    parity = verify(bundle)
    with open_session(bundle, threads=THREADS) as session:
        latency = measure(session, batch=1)
    return _Measured(
        manifest, parity.reports, parity.passed, evaluate_bundle(bundle), latency, bench(bundle, threads=THREADS)[0]
    )


def _rows(m: _Measured) -> list[DemoRow]:
    """One row per component, from its worst teacher-forced output, and one for the pipeline fed by itself."""
    sizes = {c.name: m.manifest.files[c.onnx].size / 1e6 for c in m.manifest.components}
    parts = [_row(m, name, m.latency.components[name], size) for name, size in sizes.items()]
    whole = replace(
        _row(m, PIPELINE, m.latency.total, sum(sizes.values())),
        speedup=m.speed.speedups[TORCH].median,
        accuracy=m.evaluation.deployed.accuracy,
        accuracy_difference=0.0 - m.points_lost,
    )
    return [*parts, whole]


def _row(m: _Measured, component: str, latency: Distribution, megabytes: float) -> DemoRow:
    worst = max((r for r in m.parity if r.component == component), key=lambda r: r.excess)
    return DemoRow(
        precision=m.manifest.precision,
        component=component,
        max_abs=worst.max_abs,
        rel_l2=worst.rel_l2,
        cosine=worst.cosine,
        tolerance=worst.tolerance,
        passed=worst.passed,
        p50_ms=latency.p50,
        p95_ms=latency.p95,
        megabytes=megabytes,
    )
