"""A graph with all its values as outputs: ONNX Runtime without optimisations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import onnx
from onnx import numpy_helper

from perceiver_runtime.errors import INSTALL_ONNXRUNTIME, UnavailableError
from perceiver_runtime.tensors import Array

_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
_REWRITTEN = re.compile(
    r"(/(half|single|fp16|bf16|fp32|rounded|widened)|_(Dequantize|Quantize)Linear_Output|\.(fp16|bf16|half))+$"
)


def canonical(name: str) -> str:
    """The name of a value in the FP32 graph: casts and quantizers of a precision append suffixes."""
    return _REWRITTEN.sub("", name)


class OpenGraph:
    """One graph, ready to run; `names` are the floating-point results of its nodes in order.

    Raises:
        UnavailableError: ONNX Runtime is missing, or can't run the graph on this processor (BF16).
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._session = _session(_with_all_outputs(model))
        types = {output.name: output.type for output in self._session.get_outputs()}
        made = [name for node in model.graph.node for name in node.output if name]
        self.names = tuple(name for name in made if types[name] in _FLOATS)

    def run(self, inputs: Mapping[str, Array], names: Iterable[str]) -> dict[str, Array]:
        """Values by name, constants included; names that the graph lacks are left out."""
        wanted = set(names)
        made = [name for name in self.names if name in wanted]
        results = self._session.run(made, dict(inputs)) if made else []
        constants = {n: numpy_helper.to_array(self._constants[n]) for n in wanted & set(self._constants)}
        return {**constants, **dict(zip(made, results, strict=True))}


def part(model: onnx.ModelProto, outputs: Iterable[str], inputs: Mapping[str, Array]) -> onnx.ModelProto:
    """The smallest subgraph from `inputs` to `outputs`; input types and shapes are those of the arrays."""
    makers = {name: node for node in model.graph.node for name in node.output}
    needed, pending = set(), list(outputs)
    while pending:
        name = pending.pop()
        if name in makers and name not in inputs and name not in needed:
            needed.add(name)
            pending += list(makers[name].input)
    nodes = [node for node in model.graph.node if needed & set(node.output)]
    read = {name for node in nodes for name in node.input}
    specs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
        if name in read
    ]
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = onnx.helper.make_graph(nodes, "part", specs, results, constants)
    made = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return onnx.shape_inference.infer_shapes(made)


def boundary(model: onnx.ModelProto, output: str, known: Iterable[str]) -> tuple[str, ...]:
    """Known values and graph inputs from which `output` is computed without another known value in between."""
    makers = {name: node for node in model.graph.node for name in node.output}
    agreed = set(known) - {output} | {value.name for value in model.graph.input}
    found: dict[str, None] = {}
    seen, pending = set(), [output]
    while pending:
        name = pending.pop()
        if name in agreed:
            found[name] = None
        elif name in makers and name not in seen:
            seen.add(name)
            pending += list(makers[name].input)
    return tuple(found)


def _with_all_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    made = (name for node in model.graph.node for name in node.output if name and name not in given)
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    return opened


def _session(model: onnx.ModelProto) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UnavailableError(f"comparing nodes needs onnxruntime: {error}; {INSTALL_ONNXRUNTIME}") from error
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise UnavailableError(
            f"onnxruntime {ort.__version__} can't run the graph on this processor: {error}"
        ) from error
