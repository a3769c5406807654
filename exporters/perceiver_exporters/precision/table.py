"""The precisions, by name. Adding one is a module with its rewrite and emulation, and an entry here."""

from __future__ import annotations

import functools

from perceiver_exporters.precision.dynamic import rewrite as to_dynamic
from perceiver_exporters.precision.emulation import brain, eight, four, half, quantized, ranged, single
from perceiver_exporters.precision.formats import BF16, FP16
from perceiver_exporters.precision.fp32 import rewrite as to_fp32
from perceiver_exporters.precision.int8 import rewrite as to_int8
from perceiver_exporters.precision.low import rewrite as to_low
from perceiver_exporters.precision.modelopt import rewrite as by_modelopt
from perceiver_exporters.precision.precision import Precision
from perceiver_runtime.measure.tolerances import MARGINS

_ALL = (
    Precision(
        name="fp32",
        summary="single precision, as PyTorch computes",
        rewrite=to_fp32,
        emulate=single,
        margins=MARGINS["fp32"],
        share=1.0,
    ),
    Precision(
        name="fp16",
        summary="half-precision weights and matrix products; normalisation and softmax in single precision",
        rewrite=functools.partial(to_low, form=FP16),
        emulate=half,
        margins=MARGINS["fp16"],
        share=1.0,
        format=FP16,
    ),
    Precision(
        name="bf16",
        summary="weights and matrix products in BF16, which has FP32's range and 8 bits of precision",
        rewrite=functools.partial(to_low, form=BF16),
        emulate=brain,
        margins=MARGINS["bf16"],
        share=1.0,
        format=BF16,
    ),
    Precision(
        name="int8",
        summary="8-bit weights and activations in products with a constant weight; the rest in single precision",
        rewrite=to_int8,
        emulate=quantized,
        margins=MARGINS["int8"],
        share=0.99,
        calibrated=True,
        planned=True,
    ),
    Precision(
        name="int8-dynamic",
        summary="8-bit weights, and activations over the range of each run, in products with a constant matrix",
        rewrite=to_dynamic,
        emulate=ranged,
        margins=MARGINS["int8-dynamic"],
        share=0.99,
        planned=True,
    ),
    Precision(
        name="fp8",
        summary="8-bit floating point (E4M3) weights and activations in products with a constant weight, by ModelOpt",
        rewrite=functools.partial(by_modelopt, mode="fp8"),
        emulate=eight,
        margins=MARGINS["fp8"],
        share=0.9,  # ModelOpt leaves convolutions of few channels alone
        calibrated=True,
    ),
    Precision(
        name="int4",
        summary="4-bit weights in blocks, activations in single precision, by ModelOpt",
        rewrite=functools.partial(by_modelopt, mode="int4"),
        emulate=four,
        margins=MARGINS["int4"],
        share=0.9,
        calibrated=True,
    ),
)
PRECISIONS: dict[str, Precision] = {precision.name: precision for precision in _ALL}
