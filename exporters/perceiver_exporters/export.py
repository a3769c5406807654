"""`export_bundle`: a model cut into components becomes a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perceiver_exporters.component import Blueprint
from perceiver_exporters.exporter import Exporter, Tracer
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.precision import require
from perceiver_exporters.precision.options import DEFAULTS, QuantizationOptions
from perceiver_exporters.rules import REWRITE_RULES, RewriteRule
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.manifest import Manifest

__all__ = ["Exporter", "Tracer", "export_bundle"]


def export_bundle(
    blueprint: Blueprint,
    destination: Path,
    precision: str = "fp32",
    target: str = "cpu",
    *,
    overwrite: bool = False,
    tracer: Tracer = trace,
    rules: Sequence[RewriteRule] = REWRITE_RULES,
    quantization: QuantizationOptions = DEFAULTS,
) -> Manifest:
    """Write the bundle of a model at one precision for one target, whole or not at all.

    Two exports of the same blueprint give the same bytes; on two processors, the same decisions and, within FP32's
    rounding, the same scales: what decides how a model is quantised is measured in FP64.

    Args:
        blueprint: The model, cut into components, with golden inputs and calibration data.
        destination: Directory of the bundle, which must not exist unless `overwrite` is true.
        precision: A name of `PRECISIONS`.
        target: A name of `TARGETS`.
        overwrite: Replace an existing bundle once the new one is complete.
        tracer: See `Exporter`.
        rules: See `Exporter`.
        quantization: See `Exporter`.

    Returns:
        The bundle's manifest.

    Raises:
        UsageError: Unknown or unsuited precision or target, existing destination, int8 without calibration data.
        CheckError: A component can't be traced, its graph is not in the asked precision or leaves its range, its
            answers are not finite or are lost in that precision, or its accuracy budget can't be held.
        OSError: The disk.
    """
    place, chosen = require(TARGETS, target, precision)
    return Exporter(blueprint, chosen, place, quantization, tracer, rules).export(destination, overwrite=overwrite)
