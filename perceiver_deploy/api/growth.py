"""How a bundle's error grows over its repeated blocks and layers: measured on its golden samples, and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.api.verify import backend_for
from perceiver_deploy.sources.reference import reference_of
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.diagnose.error_growth import ErrorGrowth, measure_growth
from perceiver_exporters.diagnose.layer_error_growth import measure_layers
from perceiver_exporters.precision.widen import runnable_bundle
from perceiver_runtime import load_bundle, open_session
from perceiver_runtime.cli.report import to_json
from perceiver_runtime.errors import UnavailableError, UsageError
from perceiver_runtime.format.outputs import check_file, replacing
from perceiver_runtime.golden import load_golden


@dataclass(frozen=True)
class GrowthReport:
    """One entry for each value that a repeated component carries from run to run, or a trunk from layer to layer."""

    bundle: str
    precision: str
    backend: str
    samples: int
    growth: tuple[ErrorGrowth, ...]


def growth(bundle: str | Path, *, reference: str | None = None, backend: str | None = None) -> GrowthReport:
    """Measure how a bundle's error grows over the runs of repeated blocks, and over the layers of those that run once.

    Args:
        bundle: Directory of the bundle, whose golden samples are run.
        reference: Model of the zoo or checkpoint with the bundle's weights; None: the bundle's source.
        backend: What runs the bundle; None takes the backend that computes as the bundle's target does.

    Returns:
        Relative L2 errors against the reference in FP64.

    Raises:
        UsageError: Nothing repeats, or the reference has other weights than the bundle.
        BundleError: The bundle is damaged.
    """
    loaded = load_bundle(bundle)
    manifest, samples = loaded.manifest, load_golden(loaded)
    cut = blueprint(reference_of(loaded, reference)).cut
    chosen = backend or backend_for(manifest.target)
    with runnable_bundle(loaded, chosen) as runnable, open_session(runnable, chosen, check_finite=False) as session:
        feeds = [sample.feeds for sample in samples]
        found = (*measure_growth(session, cut, feeds), *measure_layers(session, cut, feeds))
        if not found:
            raise UsageError(f"{bundle}: nothing repeats, so no error grows; `verify` compares each component")
        return GrowthReport(str(bundle), manifest.precision, session.backend, len(samples), found)


def check_output(path: Path) -> None:
    """Raise UsageError for another suffix than `write_growth` takes, UnavailableError for a place it can't write."""
    if path.suffix not in WRITERS:
        raise UsageError(f"{path}: expected a file name that ends in {', '.join(WRITERS)}")
    check_file(path)


def write_growth(report: GrowthReport, path: Path) -> None:
    """Write the curves in the format of the suffix: .json, or a picture as .svg or .png (with matplotlib).

    Raises what `check_output` raises, UnavailableError without matplotlib, OSError (the disk).
    """
    check_output(path)
    with replacing(path) as partial:
        WRITERS[path.suffix](report, partial)


def _write_json(report: GrowthReport, path: Path) -> None:
    path.write_text(to_json(report) + "\n", encoding="utf-8")


def _draw(report: GrowthReport, path: Path) -> None:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise UnavailableError(f"{path}: needs matplotlib ({error}); pip install 'perceiver-deploy[plot]'") from error
    with rc_context({"svg.hashsalt": "growth"}):
        figure = Figure(figsize=(7, 4.2 * len(report.growth)), layout="constrained")
        panels = figure.subplots(len(report.growth), 1, squeeze=False).flat
        for axes, growth in zip(panels, report.growth, strict=True):
            for label, style, points, first in _lines(growth):
                axes.plot(range(first, first + len(points)), points, style, label=label)
            axes.set_yscale("log")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel(f"{growth.over} of {growth.component}")
            axes.set_ylabel(f"relative L2 error of {growth.value}")
            axes.set_title(f"{report.precision} on {report.backend}, against FP64; golden samples: {report.samples}")
            axes.grid(alpha=0.3)
            axes.legend()
        figure.savefig(path, dpi=150, metadata=_METADATA[path.suffix])


def _lines(growth: ErrorGrowth) -> tuple[tuple[str, str, tuple[float, ...], int], ...]:
    """Label, style, points, and the run at which they begin."""
    return (
        ("chained: the deployed pipeline", "o-", growth.chained, 0),
        ("encoder's error, through the exact block", "s--", growth.amplified, 0),
        (f"one of the {growth.over}, on exact input", "^:", growth.teacher_forced, 1),
    )


_METADATA: Mapping[str, dict[str, None]] = {".svg": {"Date": None}, ".png": {}}
WRITERS: Mapping[str, Callable[[GrowthReport, Path], None]] = {".json": _write_json, ".svg": _draw, ".png": _draw}
