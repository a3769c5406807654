"""Graph checks that need no reference: precision and quantizers as the bundle declares them.

Parity alone does not find everything: an FP32 graph passes every INT8 tolerance, and a CPU that accumulates FP16 in
FP32 hides an overflow on GPUs.

| Rule | Violation |
|---|---|
| `label` | too few of the weighted matrix FLOPs are in the component's precision |
| `low-sum` | a normalisation, softmax or reduction in FP16 or BF16 |
| `quantiser-pair` | a DequantizeLinear whose scale or zero point differs from its QuantizeLinear's |
| `weight-axis` | scales of a weight that are not per output channel of the product that reads it |
| `weight-zero` | a weight whose zero point is not the middle of its integers: weights are symmetric |
| `weight-range` | a weight outside the 7 bits that the bundle declares |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from perceiver_exporters.bundle.stored_graphs import stored_graph
from perceiver_exporters.diagnose.bisection.record import kept_in_fp32, precision_record
from perceiver_exporters.ir.graph import constant_of
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.precision.integers.scheme import REDUCED_RANGE
from perceiver_exporters.precision.proof.operands import prove
from perceiver_exporters.precision.record import ComponentPrecision
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import CheckError
from perceiver_runtime.manifest import ComponentEntry, Manifest
from perceiver_runtime.tensorrt.builder.profiles import component_profiles
from perceiver_runtime.tensors import Profile

SUMS = frozenset({"LayerNormalization", "Softmax", "ReduceSum", "ReduceMean", "ReduceL2", "ReduceSumSquare"})
LOW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
MIDDLE = {ir.DataType.INT8: 0, ir.DataType.UINT8: 128}
_CHANNELS = {"MatMul": -1, "Gemm": 1, "Conv": 0}
"""The axis of a weight with a product's output channels (of a Gemm without transB)."""


@dataclass(frozen=True)
class Breach:
    """A check that a graph fails; `node` is empty if the whole component does."""

    component: str
    node: str
    rule: str
    why: str
    passed: bool = False

    def __str__(self) -> str:
        return f"{self.component}{': ' if self.node else ''}{self.node}: {self.why} ({self.rule})"


def check_claims(bundle: Bundle) -> tuple[Breach, ...]:
    """All failed checks of a bundle, component by component."""
    record = precision_record(bundle)
    return tuple(
        breach
        for entry in bundle.manifest.components
        for breach in _breaches(stored_graph(bundle, entry.onnx), entry, bundle.manifest, record.get(entry.name))
    )


def _breaches(
    model: ir.Model, entry: ComponentEntry, manifest: Manifest, record: ComponentPrecision | None
) -> Iterator[Breach]:
    common.ShapeInferencePass()(model)  # a stored graph does not say what types its nodes have
    kept = kept_in_fp32(model.graph, record)
    try:
        prove(SizedGraph(model, entry.inputs, _profile(manifest, entry)), PRECISIONS[entry.precision], kept)
    except CheckError as error:
        yield Breach(entry.name, "", "label", str(error))
    for node in model.graph:
        for rule, check in NODE_RULES.items():
            for why in check(node):
                yield Breach(entry.name, str(node.name), rule, why)
        for why in _weight_range(node) if record is not None and record.reduced_range else ():
            yield Breach(entry.name, str(node.name), "weight-range", why)


def _profile(manifest: Manifest, entry: ComponentEntry) -> Profile:
    """The bundle's first profile, with the ranges of dimensions that the component alone names."""
    own = [profile.dimensions for profile in component_profiles(manifest, entry)[:1]]
    whole = [profile.dimensions for profile in manifest.profiles[:1]]
    return Profile("", {symbol: size for dimensions in own + whole for symbol, size in dimensions.items()})


def _low_sum(node: ir.Node) -> Iterator[str]:
    first = node.inputs[0] if node.inputs else None
    if node.op_type in SUMS and first is not None and first.dtype in LOW:
        yield f"{node.op_type} accumulates in {first.dtype.name.lower()}: partial sums may overflow or lose increments"


def _quantiser_pair(node: ir.Node) -> Iterator[str]:
    first = node.inputs[0] if node.inputs else None
    quantiser = first.producer() if first is not None else None
    if node.op_type != "DequantizeLinear" or quantiser is None:
        return
    if quantiser.op_type == "DynamicQuantizeLinear" and tuple(node.inputs) != tuple(quantiser.outputs):
        yield f"its scale and zero point are not those that {quantiser.name} gives"
    if quantiser.op_type != "QuantizeLinear":
        return
    for i, what in ((1, "scale"), (2, "zero point")):
        given, taken = _constant(quantiser, i), _constant(node, i)
        if not np.array_equal(given, taken):
            yield f"its {what} is {_show(taken)}, that of {quantiser.name} is {_show(given)}"


def _weight_axis(node: ir.Node) -> Iterator[str]:
    weight, scale = _weight(node), _constant(node, 1)
    if weight is None or scale.size < 2 or "block_size" in node.attributes:
        return
    axis, rank = node.attributes.get_int("axis", 1), len(weight.shape)
    for reader, expected in _channel_axes(node):
        if axis % rank != expected % rank:
            yield f"its scales lie along axis {axis}, the output channels of {reader.name} along {expected % rank}"
    if scale.size != weight.shape[axis]:
        yield f"{scale.size} scales for the {weight.shape[axis]} channels of axis {axis}"


def _weight_zero(node: ir.Node) -> Iterator[str]:
    weight, zero = _weight(node), _constant(node, 2)
    if weight is not None and zero.size and (off := zero != MIDDLE[weight.dtype]).any():
        yield f"zero point {_show(zero[off] if zero.ndim else zero)}; a symmetric weight's is {MIDDLE[weight.dtype]}"


def _weight_range(node: ir.Node) -> Iterator[str]:
    weight = _weight(node)
    if weight is None:
        return
    low, high = (int(getattr(weight.numpy(), side)()) - MIDDLE[weight.dtype] for side in ("min", "max"))
    if low < REDUCED_RANGE[0] or high > REDUCED_RANGE[1]:
        promised = " to ".join(map(str, REDUCED_RANGE))
        yield f"its integers are in {low} to {high}; a reduced range has {promised}"


NODE_RULES: dict[str, Callable[[ir.Node], Iterator[str]]] = {
    "low-sum": _low_sum,
    "quantiser-pair": _quantiser_pair,
    "weight-axis": _weight_axis,
    "weight-zero": _weight_zero,
}


def _weight(node: ir.Node) -> ir.TensorProtocol | None:
    """The 8-bit constant that a DequantizeLinear reads."""
    tensor = constant_of(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
    return tensor if tensor is not None and tensor.dtype in MIDDLE else None


def _channel_axes(node: ir.Node) -> Iterator[tuple[ir.Node, int]]:
    """The products that read a dequantised weight, each with the axis of its output channels."""
    for reader, index in node.outputs[0].uses():
        if index == 1 and reader.op_type in _CHANNELS:
            transposed = reader.op_type == "Gemm" and reader.attributes.get_int("transB", False)
            yield reader, 0 if transposed else _CHANNELS[reader.op_type]


def _constant(node: ir.Node, index: int) -> np.ndarray:
    """An input that is a constant, or an empty array."""
    tensor = constant_of(node.inputs[index]) if index < len(node.inputs) else None
    return np.empty(0) if tensor is None else tensor.numpy()


def _show(array: np.ndarray) -> str:
    return ", ".join(f"{x:g}" for x in array.reshape(-1)[:3].astype(float)) or "none"
