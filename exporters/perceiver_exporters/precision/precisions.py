"""The precisions, by name. Adding one is a module with a subclass of `Precision`, and an entry here."""

from __future__ import annotations

from collections.abc import Mapping

from perceiver_exporters.precision.dynamic_integers import DynamicIntegers
from perceiver_exporters.precision.floating import FloatingPoint
from perceiver_exporters.precision.formats import BF16, FP16
from perceiver_exporters.precision.modelopt import ModelOptFormat
from perceiver_exporters.precision.precision import Precision
from perceiver_exporters.precision.static_integers import StaticIntegers
from perceiver_exporters.targets.target import Target
from perceiver_runtime.errors import UsageError

_ALL: tuple[Precision, ...] = (
    FloatingPoint("fp32", "single precision, as PyTorch computes"),
    FloatingPoint(
        "fp16",
        "half-precision weights and matrix products; normalisation and softmax in single precision",
        format=FP16,
    ),
    FloatingPoint(
        "bf16",
        "weights and matrix products in BF16, which has FP32's range and 8 bits of precision",
        format=BF16,
    ),
    StaticIntegers(
        "int8",
        "8-bit weights and activations in products with a constant weight; the rest in single precision",
        share=0.99,
    ),
    DynamicIntegers(
        "int8-dynamic",
        "8-bit weights, and activations over the range of each run, in products with a constant matrix",
        share=0.99,
    ),
    ModelOptFormat(
        "fp8",
        "8-bit floating point (E4M3) weights and activations in products with a constant weight, by ModelOpt",
        share=0.9,  # ModelOpt leaves convolutions of few channels alone
    ),
    ModelOptFormat("int4", "4-bit weights in blocks, activations in single precision, by ModelOpt", share=0.9),
)
PRECISIONS: dict[str, Precision] = {precision.name: precision for precision in _ALL}


def require(targets: Mapping[str, Target], target: str, precision: str) -> tuple[Target, Precision]:
    """The target and precision of those names. Raises UsageError if either is unknown or they don't go together."""
    if target not in targets:
        raise UsageError(f"target (--target): expected one of {', '.join(targets)}, got {target!r}")
    if precision not in PRECISIONS:
        raise UsageError(f"precision (--precision): expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    targets[target].require(precision)
    return targets[target], PRECISIONS[precision]
