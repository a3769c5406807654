"""Which graphs with quantizers of the model's own can be exported: at int8, which keeps their scales."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from perceiver_exporters.component import Cut
from perceiver_exporters.ir.prequantized import quantizers
from perceiver_exporters.precision.emulation import quantizes
from perceiver_exporters.precision.integers.layers import weighted
from perceiver_exporters.precision.precision import Graphs, Precision
from perceiver_exporters.reference import Feeds
from perceiver_runtime.errors import UsageError
from perceiver_runtime.manifest import Source


def refuse_quantized(model: ir.Model, precision: Precision) -> None:
    """Raise UsageError for a graph with quantizers of its own at a precision that does not keep their scales."""
    found = quantizers(model.graph)
    if found and precision.name != "int8":
        raise UsageError(
            f"component {model.graph.name} has {len(found)} quantizers of its own, {found[0].name} among them; "
            f"expected int8, which keeps their scales, got {precision.name}: export int8, or take the quantizers off"
        )


def check_quantizers(precision: Precision, source: Source, cut: Cut, samples: Sequence[Feeds]) -> None:
    """Raise UsageError for a model without calibration data, unless it quantises something itself on the samples."""
    if not quantizes(cut, samples):
        raise UsageError(
            f"{precision.name} takes its ranges from real inputs, and {source.name} has no calibration data; "
            "export fp32, fp16 or int8-dynamic, or give inputs of your own (--data; of a single sample "
            "none is left for calibration)"
        )


def refuse_uncalibrated(name: str, graphs: Graphs) -> None:
    """Raise UsageError where a model without calibration data has products that its own quantizers leave out."""
    products = [node for model in graphs.values() for node in weighted(model.graph)]
    if products:
        raise UsageError(
            f"{name} has quantizers of its own, but none for {len(products)} products, {products[0].name} among them, "
            "and no calibration data: quantize them in the module, or give inputs of your own (--data)"
        )
