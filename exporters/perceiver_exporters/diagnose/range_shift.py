"""Range shift: how many activations of given samples lie outside the ranges that an int8 bundle was calibrated to.

A value outside becomes the end of its range. Each component runs in the bundle's integers on the reference's inputs,
and counts what its quantizers are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perceiver_exporters.bundle.stored_graphs import stored_proto
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import INSTALL_ONNXRUNTIME, UnavailableError
from perceiver_runtime.golden import ComponentCall
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensors import Array

MAX_SHARE = 1e-3
"""Share of a component's activations outside of their ranges that is warned of."""
CALIBRATED = "int8"


@dataclass(frozen=True)
class RangeShift:
    """Of one component: the share of its quantised activations outside, and the tensor with the largest share."""

    component: str
    share: float
    tensor: str
    tensor_share: float

    @property
    def warned(self) -> bool:
        """Whether the share is over the limit."""
        return self.share > MAX_SHARE


class RangeWatch:
    """Counts of all components of a bundle; of a bundle without calibrated ranges, none.

    Raises:
        UnavailableError: onnxruntime is missing.
        BundleError: A graph is damaged.
    """

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        entries = manifest.components if manifest.precision == CALIBRATED else ()
        made = {entry.name: _Counts(bundle, entry) for entry in entries}
        self._counts = {name: counts for name, counts in made.items() if counts.tensors}

    def see(self, call: ComponentCall) -> None:
        """Count the activations of one call of the reference."""
        if call.component in self._counts:
            self._counts[call.component].see(call.inputs)

    def shifts(self) -> tuple[RangeShift, ...]:
        """What was counted, by component."""
        return tuple(counts.shift(name) for name, counts in self._counts.items() if counts.total)


class _Counts:
    """One component, whose quantizers count."""

    def __init__(self, bundle: Bundle, entry: ComponentEntry) -> None:
        proto = stored_proto(bundle, entry.onnx)
        self._types = {spec.name: spec.dtype for spec in entry.inputs}
        self.tensors, self._session = _counting(proto)
        self._outside = dict.fromkeys(self.tensors, 0)
        self._sizes = dict.fromkeys(self.tensors, 0)

    @property
    def total(self) -> int:
        """Number of activations so far."""
        return sum(self._sizes.values())

    def see(self, inputs: Mapping[str, Array]) -> None:
        feeds = {name: inputs[name].astype(dtype, copy=False) for name, dtype in self._types.items()}
        made = self._session.run(None, feeds)
        for name, outside, size in zip(self.tensors, made[::2], made[1::2], strict=True):
            self._outside[name] += int(outside)
            self._sizes[name] += int(size)

    def shift(self, component: str) -> RangeShift:
        shares = {name: self._outside[name] / max(size, 1) for name, size in self._sizes.items()}
        worst = max(shares, key=shares.__getitem__)
        return RangeShift(component, sum(self._outside.values()) / self.total, worst, shares[worst])


def _counting(proto: onnx.ModelProto) -> tuple[tuple[str, ...], Any]:
    """Tensors with a fixed range, and a session that gives for each how many values are outside, of how many."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    quantizers = {
        node.input[0]: node
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear" and set(node.input[1:]) <= set(constants)
    }
    if not quantizers:
        return (), None
    del proto.graph.output[:]
    for name, node in quantizers.items():
        scale, zero = (numpy_helper.to_array(constants[each]) for each in node.input[1:3])
        ends = np.iinfo(zero.dtype)
        low, high = ((end - int(zero) + half) * float(scale) for end, half in ((ends.min, -0.5), (ends.max, 0.5)))
        proto.graph.node.extend(_count(proto, name, np.dtype(scale.dtype), low, high))
    return tuple(quantizers), _session(proto)


def _count(proto: onnx.ModelProto, name: str, dtype: np.dtype[Any], low: float, high: float) -> list[onnx.NodeProto]:
    """Nodes that count the values that are rounded to an end of the range, though they are beyond it."""
    bounds = {f"{name}/low": low, f"{name}/high": high}
    proto.graph.initializer.extend(numpy_helper.from_array(np.array(v, dtype), n) for n, v in bounds.items())
    proto.graph.output.extend(
        helper.make_tensor_value_info(f"{name}/{what}", TensorProto.INT64, []) for what in ("outside", "size")
    )
    return [
        helper.make_node("Less", [name, f"{name}/low"], [f"{name}/below"]),
        helper.make_node("Greater", [name, f"{name}/high"], [f"{name}/above"]),
        helper.make_node("Or", [f"{name}/below", f"{name}/above"], [f"{name}/beyond"]),
        helper.make_node("Cast", [f"{name}/beyond"], [f"{name}/counted"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", [f"{name}/counted"], [f"{name}/outside"], keepdims=0),
        helper.make_node("Size", [name], [f"{name}/size"]),
    ]


def _session(proto: onnx.ModelProto) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UnavailableError(f"range shift needs onnxruntime: {error}; {INSTALL_ONNXRUNTIME}") from error
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
