"""Observed graphs: ONNX Runtime runs a graph with the tensors to be quantised as outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from perceiver_exporters.precision.calibration.statistics import Statistics
from perceiver_exporters.precision.integers.attention import attentions
from perceiver_exporters.precision.integers.layers import weighted
from perceiver_exporters.reference import Feeds
from perceiver_runtime.errors import INSTALL_ONNXRUNTIME, UnavailableError


def quantized_tensors(graph: ir.Graph, attention: bool = False) -> tuple[str, ...]:
    """Tensors that may get a quantizer: inputs of weighted products, outputs of convolutions, operands of attention."""
    nodes = weighted(graph)
    inputs = [node.inputs[0] for node in nodes]
    outputs = [node.outputs[0] for node in nodes if node.op_type == "Conv"]
    if attention:
        inputs += [node.inputs[index] for each in attentions(graph) for node, index in each.operands]
    return tuple(dict.fromkeys(str(v.name) for v in (*inputs, *outputs) if v is not None))


def observe(model: ir.Model, feeds: Iterable[Feeds]) -> Statistics:
    """Statistics of a component's tensors over all feeds, processed one by one."""
    statistics, graph = Statistics(), ObservedGraph(model)
    for feed in feeds:
        graph.see(feed, statistics)
        statistics.samples += 1
    return statistics


class ObservedGraph:
    """An FP32 component as an ONNX Runtime session. Raises UnavailableError without onnxruntime."""

    def __init__(self, model: ir.Model, attention: bool = False) -> None:
        self.tensors = quantized_tensors(model.graph, attention)
        self._inputs = {str(v.name): v.dtype.numpy() for v in model.graph.inputs if v.dtype is not None}
        self._computed = [name for name in self.tensors if name not in self._inputs]
        self._session = _session(model, self._computed)

    def see(self, feed: Feeds, statistics: Statistics) -> None:
        """Run once and add every tensor to the statistics."""
        given = {name: feed[name].astype(dtype, copy=False) for name, dtype in self._inputs.items()}
        computed = self._session.run(self._computed, given) if self._computed else []
        for name, values in (*zip(self._computed, computed, strict=True), *given.items()):
            if name in self.tensors:
                statistics.tensors[name].see(values, name)


def _session(model: ir.Model, outputs: Sequence[str]) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UnavailableError(f"int8 needs onnxruntime to calibrate: {error}; {INSTALL_ONNXRUNTIME}") from error
    proto: onnx.ModelProto = ir.to_proto(model)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs or [str(model.graph.inputs[0].name)])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
