"""`inspect`: what a bundle holds, its rewrite rules, the proof of its precision, and forecasts for boards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiver_exporters.bundle.stored_graphs import stored_graph
from perceiver_exporters.precision.record import PATH, ComponentPrecision, parse_record
from perceiver_exporters.roofline.forecast import Forecast, forecasts
from perceiver_exporters.rules import RuleOutcome, outcomes
from perceiver_runtime import load_bundle
from perceiver_runtime.bundle import Bundle


@dataclass(frozen=True)
class Inspection:
    """A checked bundle, with the outcome of each rewrite rule and the precision of each component, and forecasts.

    `rules`, `precision` and `forecast` are None where they were not asked for.
    """

    bundle: Bundle
    rules: Mapping[str, tuple[RuleOutcome, ...]] | None = None
    precision: tuple[ComponentPrecision, ...] | None = None
    forecast: tuple[Forecast, ...] | None = None


def inspect(bundle: str | Path, *, rules: bool = False, precision: bool = False, forecast: bool = False) -> Inspection:
    """Check every file's size and hash, and read what the bundle tells of itself.

    Args:
        bundle: Directory of the bundle.
        rules: Read from each graph which rewrite rules were applied, and why others were not.
        precision: Read the proof of precision: what was kept in FP32, and why.
        forecast: Forecast the latency on each board of the target table, from the graphs alone.

    Returns:
        The bundle and what was asked for.

    Raises:
        BundleError: The bundle is damaged, or was made by a newer version.
    """
    loaded = load_bundle(bundle)
    components = loaded.manifest.components
    return Inspection(
        loaded,
        {c.name: outcomes(stored_graph(loaded, c.onnx)) for c in components} if rules else None,
        parse_record(loaded.read(PATH), loaded.file(PATH)) if precision else None,
        forecasts(loaded) if forecast else None,
    )
