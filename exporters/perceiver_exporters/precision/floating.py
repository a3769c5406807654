"""FP32, FP16 and BF16: weights and matrix products in one type, with explicit casts in the graph.

| Nodes | Type | Why |
|---|---|---|
| MatMul, Gemm, Conv | low | most FLOPs and weights; kernels accumulate in FP32 |
| MultiHeadAttention | low | like its products; kernels compute its softmax in FP32 |
| Add and Mul with a constant (bias, scale) | low | fused into the product before them |
| Gelu, Relu, ... (the format's `functions`) | low | bounded by their input, fused between two products |
| Reshape, Transpose, Gather, ... | that of their input | data movement only |
| the same where only LSTM, GRU or RNN read them | FP32 | recurrence is in FP32; TensorRT-RTX builds no cast between |
| LayerNormalization, Softmax, Reduce*, Exp, ... | FP32 | sums of squares or of many exponentials leave the range |
| residual Add and everything else | FP32 | the residual stream accumulates over all layers |
| nodes that the range audit protects | FP32 | see `precision.audit` |

Large constants are stored in the low type whoever reads them, which halves the file. Graph inputs and outputs keep
their types.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from perceiver_exporters.component import Cut
from perceiver_exporters.ir.fused_attention import is_fused, operands
from perceiver_exporters.ir.graph import constant_of, drop_unread, move_name
from perceiver_exporters.precision.emulation import DispatchMode, emulate_fp32, unfused
from perceiver_exporters.precision.formats import Format
from perceiver_exporters.precision.integers.plan import Plan
from perceiver_exporters.precision.integers.scheme import Scheme
from perceiver_exporters.precision.precision import Precision, Request
from perceiver_exporters.reference import Feeds, Scope
from perceiver_runtime.errors import CheckError

SINGLE = ir.DataType.FLOAT
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
WITH_CONSTANT = frozenset({"Add", "Mul"})
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
UNREAD = frozenset({"Shape", "Size"})
"""Operators that read shapes only: their input may have any type."""
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
STORED_LOW = 1024
"""Elements from which a constant table (positions, embeddings) is stored in the low type whoever reads it."""


_aten = torch.ops.aten
_FACTORS = {
    _aten.mm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.convolution.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.baddbmm.default: (1, 2),
    _aten.mv.default: (0, 1),
    _aten.addmv.default: (1, 2),
    _aten.dot.default: (0, 1),
}
"""Indices of both factors among a product's arguments."""
_ROUNDED = {*_FACTORS, _aten.gelu.default, _aten.relu.default}


@dataclass(frozen=True)
class FloatingPoint(Precision):
    """FP32 if `format` is None, else that narrower type."""

    def rewrite(self, model: ir.Model, request: Request) -> ir.Model:
        """Change an FP32 graph in place to the types of the table above.

        Raises:
            CheckError: A constant that has to be stored in the narrower type leaves its range.
        """
        if self.format is not None:
            lower(model, self.format, frozenset(finding.node for finding in request.findings))
        return model

    def emulate(self, cut: Cut, calibration: Iterable[Feeds], scheme: Scheme, plan: Plan | None = None) -> Scope:
        """Operands and results of every matrix product rounded; attention as two products and a softmax."""
        form = self.format
        return lambda _: emulate_fp32() if form is None else unfused(_Rounded(form))

    def prove(self, node: ir.Node) -> bool:
        """Whether all operands have the type."""
        dtype = SINGLE if self.format is None else self.format.dtype
        return all(value is not None and value.dtype == dtype for value in operands(node))


def lower(model: ir.Model, form: Format, protected: Set[str]) -> None:
    """Change an FP32 graph in place to a narrower type, except for the protected nodes. Raises CheckError."""
    _Rewrite(model.graph, form, protected).run()


def is_table(value: ir.Value | None) -> bool:
    """Whether a constant is large enough to be stored in the low type whoever reads it."""
    tensor = constant_of(value)
    return tensor is not None and tensor.dtype == SINGLE and len(tensor.shape) > 1 and tensor.size >= STORED_LOW


def _is_read_by(node: ir.Node, kinds: Set[str]) -> bool:
    """Whether only nodes of these kinds read the outputs of a node, and at least one does."""
    readers = [reader for output in node.outputs for reader, _ in output.uses()]
    return bool(readers) and all(reader.op_type in kinds for reader in readers)


class _Rewrite:
    """One pass over a graph in topological order; casts and converted constants are shared."""

    def __init__(self, graph: ir.Graph, form: Format, protected: Set[str]) -> None:
        self._graph = graph
        self._form = form
        self._protected = protected
        self._cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        low, types = self._form.dtype, (self._form.dtype, SINGLE)
        for node in [node for node in self._graph if node.op_type not in UNREAD]:
            becomes = low if self._is_low(node) else SINGLE
            for i, value in enumerate(node.inputs):
                if value is not None and value.dtype in types:
                    node.replace_input_with(i, self._as(value, becomes, node))
            for output in node.outputs:
                if becomes == low and output.dtype == SINGLE:
                    self._lower(output, node)
        drop_unread(self._graph)

    def _is_low(self, node: ir.Node) -> bool:
        """Whether a node computes in the low type, given that its input may already have it."""
        if node.name in self._protected:
            return False
        if node.op_type in PRODUCTS or is_fused(node):
            return True
        if node.op_type in MOVES and _is_read_by(node, RECURRENT):
            return False
        first = node.inputs[0] if node.inputs else None
        if first is None or first.dtype != self._form.dtype:
            if node.op_type in WITH_CONSTANT and len(node.inputs) == 2 and node.inputs[1] is not None:
                return node.inputs[1].dtype == self._form.dtype and constant_of(first) is not None
            return node.op_type in MOVES and is_table(first)
        if node.op_type in WITH_CONSTANT:
            return constant_of(node.inputs[1]) is not None
        return node.op_type in self._form.functions or node.op_type in MOVES

    def _as(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        """The value in that type: itself, a converted constant, or behind a cast."""
        if dtype == SINGLE and is_table(value) and reader.name not in self._protected:
            value = self._as(value, self._form.dtype, reader)
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self._cast:
            tensor = constant_of(value)
            convert = self._cast_node if tensor is None or dtype == SINGLE else self._constant
            self._cast[value, dtype] = convert(value, dtype, reader)
        return self._cast[value, dtype]

    def _constant(self, value: ir.Value, dtype: ir.DataType, _: ir.Node) -> ir.Value:
        tensor = constant_of(value)
        assert tensor is not None
        with np.errstate(over="ignore"):
            array = tensor.numpy().astype(self._form.numpy)
        if not np.isfinite(array).all():
            raise CheckError(
                f"constant {value.name} leaves {self._form.name.upper()}'s range of {self._form.largest:,g}: "
                "export this model in fp32"
            )
        low = ir.tensor(array, name=f"{value.name}.{self._form.name}")
        made = ir.Value(name=low.name, shape=value.shape, type=ir.TensorType(dtype), const_value=low)
        self._graph.register_initializer(made)
        return made

    def _cast_node(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        name = f"{value.name}/{'fp32' if dtype == SINGLE else self._form.name}"
        output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
        cast = ir.node("Cast", [value], {"to": dtype}, outputs=[output], name=name)
        self._graph.insert_before(reader, cast)
        return output

    def _lower(self, output: ir.Value, node: ir.Node) -> None:
        """Give an output the low type; a graph output passes its name to a cast behind it."""
        output.type = ir.TensorType(self._form.dtype)
        if not output.is_graph_output():
            return
        single = ir.Value(shape=output.shape, type=ir.TensorType(SINGLE))
        cast = ir.node("Cast", [output], {"to": SINGLE}, outputs=[single], name=f"{output.name}/fp32")
        self._graph.insert_after(node, cast)
        for index, value in enumerate(self._graph.outputs):
            if value is output:
                self._graph.outputs[index] = single
        move_name(output, single, f"/{self._form.name}")


class _Rounded(DispatchMode):  # type: ignore[misc]
    """Values outside the type's range stay in FP32, as the range audit keeps them in the graph (RA008, RA009)."""

    def __init__(self, form: Format) -> None:
        super().__init__()
        self._form, self._dtype = form, form.torch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        operands = [args[i] for i in _FACTORS.get(func, (0,))] if func in _ROUNDED else []
        if operands and all(map(self._holds, operands)):
            rounded = self._round(func(*map(self._round, args), **given))
            if self._holds(rounded):
                return rounded
        return func(*args, **given)

    def _holds(self, value: Tensor) -> bool:
        low, high = torch.aminmax(value) if value.numel() else (torch.zeros(()), torch.zeros(()))
        return self._form.holds(max(-float(low), float(high)))

    def _round(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(self._dtype).to(value.dtype)
        return value
