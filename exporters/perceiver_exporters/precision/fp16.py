"""FP16 weights and matrix products, with the casts written into the graph (strong typing: no backend has to guess).

| Nodes | Type | Why |
|---|---|---|
| MatMul, Gemm, Conv | half | where the FLOPs and the weights are; kernels accumulate in FP32 |
| Add and Mul with a constant (bias, scale) | half | fused into the product before them |
| Gelu, Erf, Relu, Tanh, Sigmoid | half | bounded by their input, and fused between two products |
| Reshape, Transpose, Gather, ... | that of their input | they only move numbers |
| LayerNormalization, Softmax, Reduce*, Exp, ... | single | sums of squares or of many exponentials overflow 65,504 |
| residual Add and everything else | single | the residual stream adds up over all layers |

Large constants are stored in half precision wherever they are read, so that the file halves. The graph's inputs and
outputs keep their types.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.graph import constant_of
from perceiver_exporters.precision.precision import Request
from perceiver_runtime.errors import CheckError

HALF = ir.DataType.FLOAT16
SINGLE = ir.DataType.FLOAT
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
WITH_CONSTANT = frozenset({"Add", "Mul"})
BOUNDED = frozenset({"Gelu", "Erf", "Relu", "Tanh", "Sigmoid"})
MOVES = frozenset(
    {
        "Reshape",
        "Transpose",
        "Gather",
        "Slice",
        "Expand",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
        "Split",
        "Tile",
    }
)
STORED_HALF = 1024
"""Elements from which a constant table (positions, embeddings) is stored in half precision whoever reads it."""


def rewrite(model: ir.Model, _: Request) -> ir.Model:
    """Change an FP32 graph in place to the types of the table above, and return it."""
    _Rewrite(model.graph).run()
    return model


def is_half(node: ir.Node) -> bool:
    """Whether a node computes in half precision, given that its input may already be half."""
    if node.op_type in PRODUCTS:
        return True
    first = node.inputs[0] if node.inputs else None
    if first is None or first.dtype != HALF:
        if node.op_type in WITH_CONSTANT and len(node.inputs) == 2 and node.inputs[1] is not None:
            return node.inputs[1].dtype == HALF and constant_of(first) is not None
        return node.op_type in MOVES and _is_table(first)
    if node.op_type in WITH_CONSTANT:
        return constant_of(node.inputs[1]) is not None
    return node.op_type in BOUNDED or node.op_type in MOVES


def _is_table(value: ir.Value | None) -> bool:
    tensor = constant_of(value)
    return tensor is not None and tensor.dtype == SINGLE and len(tensor.shape) > 1 and tensor.size >= STORED_HALF


class _Rewrite:
    """One pass over a graph in topological order; casts and converted constants are made once and shared."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        for node in list(self._graph):
            half = is_half(node)
            for i, value in enumerate(node.inputs):
                if value is not None and value.dtype in (HALF, SINGLE):
                    node.replace_input_with(i, self._as(value, HALF if half else SINGLE, node))
            for output in node.outputs:
                if half and output.dtype == SINGLE:
                    self._to_half(output, node)
        self._drop_unread()

    def _as(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        """The value in that type: itself, a converted constant, or behind a cast."""
        if dtype == SINGLE and _is_table(value):
            value = self._as(value, HALF, reader)
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self._cast:
            tensor = constant_of(value)
            convert = self._cast_node if tensor is None or dtype == SINGLE else self._constant
            self._cast[value, dtype] = convert(value, dtype, reader)
        return self._cast[value, dtype]

    def _constant(self, value: ir.Value, _: ir.DataType, __: ir.Node) -> ir.Value:
        tensor = constant_of(value)
        assert tensor is not None
        with np.errstate(over="ignore"):
            array = tensor.numpy().astype(np.float16)
        if not np.isfinite(array).all():
            raise CheckError(f"constant {value.name} leaves FP16's range of 65,504: export this model in fp32")
        half = ir.tensor(array, name=f"{value.name}.half")
        made = ir.Value(name=half.name, shape=value.shape, type=ir.TensorType(HALF), const_value=half)
        self._graph.register_initializer(made)
        return made

    def _cast_node(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        name = f"{value.name}/{'half' if dtype == HALF else 'single'}"
        output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
        cast = ir.node("Cast", [value], {"to": dtype}, outputs=[output], name=name)
        self._graph.insert_before(reader, cast)
        return output

    def _to_half(self, output: ir.Value, node: ir.Node) -> None:
        """Type an output as half; a graph output passes its name and its place on to a cast behind it."""
        output.type = ir.TensorType(HALF)
        if not output.is_graph_output():
            return
        name, index = str(output.name), self._graph.outputs.index(output)
        output.name = f"{name}/half"
        single = ir.Value(name=name, shape=output.shape, type=ir.TensorType(SINGLE))
        cast = ir.node("Cast", [output], {"to": SINGLE}, outputs=[single], name=f"{name}/single")
        self._graph.insert_after(node, cast)
        self._graph.outputs[index] = single

    def _drop_unread(self) -> None:
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                self._graph.initializers.pop(name)
