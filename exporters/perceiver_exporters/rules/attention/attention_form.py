"""Attention as one operator on targets whose ONNX Runtime has a fused kernel for it, otherwise as MatMul and Softmax.

| Target | Form | Why |
|---|---|---|
| cuda | `com.microsoft.MultiHeadAttention` | scores stay in on-chip memory; heads are not transposed or copied |
| cpu, at least 1024 queries and keys | the operator | it works in blocks that fit into the cache; the scores do not |
| cpu, fewer | products | no slower (`benchmarks/attention_form.py`), and standard ONNX |
| TensorRT | products | it fuses them; ONNX `Attention` is opset 23, above the 20 that all these targets read |

Kernels of ONNX Runtime's CUDA provider for the operator (`contrib_ops/cuda/bert/multihead_attention.cc`), in the order
in which they are tried. All take heads side by side: (B, rows, heads * width).

- flash attention: FP16; queries, keys and values of one width, a multiple of 8 up to 256; no mask; compute capability
  8.0 and newer;
- memory efficient attention (CUTLASS): FP16, and FP32 from 256 queries or keys on; widths that are multiples of 8 up to
  1024, values' another than queries';
- otherwise products and a softmax.

All accumulate and compute the softmax in FP32. BF16 needs a later ONNX Runtime (pull requests 26083 and 26894). Masked
attention is not fused: a bias of the scores would be stored for every query, and excludes flash attention. Attention
that other rules have rewritten no longer has this form.

On processors the operator has FP32 kernels only; ONNX Runtime inserts casts around it for FP16, so that bundles for
`cuda` can be verified on a processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, ints, replace
from perceiver_exporters.ir.fused_attention import DOMAIN, OPERATOR, VERSION
from perceiver_exporters.ir.sized import Shapes, SizedGraph, static_shapes
from perceiver_exporters.rules.matchers.attention import KEY_PERM, VALUE_PERM, array_of, heads_of, operand, producer
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict
from perceiver_runtime.tensors import Array

AS_PRODUCTS: Mapping[str, str] = {
    "jetson-orin": "TensorRT fuses the products",
    "jetson-thor": "TensorRT fuses the products",
    "rtx": "TensorRT-RTX fuses the products",
    "hopper": "TensorRT fuses the products",
}
"""Targets on which attention stays products and softmax, and why."""

HEAD_MULTIPLE, MAX_FLASH_HEAD, MAX_EFFICIENT_HEAD = 8, 256, 1024
"""Divisor of head widths, and the largest width for flash and for memory efficient attention."""
MIN_FP32_ROWS = 256
"""Minimum of queries or keys for the fused FP32 kernel on CUDA."""
MIN_BLOCKED_ROWS = 1024
"""Minimum of queries and keys from which the processor's blocked kernel is faster than products."""


HeadSizes = tuple[int, int, int, int]
"""Queries, keys, head width of both, head width of the values."""


@dataclass(frozen=True)
class Attention:
    """MatMul, Softmax and MatMul that one operator can replace.

    Attributes:
        scores: The first MatMul.
        weighted: The second MatMul.
        heads: Number of heads.
        query: (B or 1, N, heads * E), before `scale`.
        scale: Factor of the queries.
        key: (B, M, heads * E).
        value: (B, M, heads * F).
        ending: The Reshape that merges the heads to (B, N, heads * F).
    """

    scores: ir.Node
    weighted: ir.Node
    heads: int
    query: ir.Value | Array
    scale: float
    key: ir.Value
    value: ir.Value
    ending: ir.Node

    @property
    def name(self) -> str:
        """Name of the attention module."""
        return str(self.scores.name).rsplit("/", 1)[0]


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Fuse all attention for which the target's backend has a fused kernel."""
    if context.target.name in AS_PRODUCTS:
        return Declined(AS_PRODUCTS[context.target.name])
    if context.precision == "bf16":
        return Declined("not every ONNX Runtime that reads this target has the operator in BF16")
    return fuse(sized, context, KERNELS[context.target.name])


def fuse(sized: SizedGraph, context: Context, kernel: Callable[[HeadSizes, str], str]) -> Verdict:
    """Fuse all plain attention for which there is a kernel.

    Args:
        sized: Graph, modified in place.
        context: Target and precision of the export.
        kernel: Name of the kernel for given sizes and precision, empty if there is none.
    """
    softmaxes = [node for node in sized.graph if node.op_type == "Softmax" and _rank(node.outputs[0]) == 4]
    if not softmaxes:
        return Declined("no softmax over scores by head")
    shapes = static_shapes(sized.opt)
    chosen, declined = [], []
    for found in map(_attention, softmaxes):
        if isinstance(found, str):
            declined.append(found)
        elif name := kernel(_sizes(found, shapes), context.precision):
            chosen.append((found, name))
        else:
            declined.append(f"no fused kernel in {context.precision} for {' x '.join(map(str, _sizes(found, shapes)))}")
    if not chosen:
        return Declined("; ".join(dict.fromkeys(declined)))
    sized.model.opset_imports[DOMAIN] = VERSION
    for attention, _ in chosen:
        _fuse(sized.graph, attention)
    return Applied(", ".join(f"{attention.name}: {name}" for attention, name in chosen))


def _attention(softmax: ir.Node) -> Attention | str:
    """The attention around a softmax, or the reason why it is not plain attention."""
    scores, weighted = producer(softmax.inputs[0], "MatMul"), _only_reader(softmax.outputs[0], "MatMul")
    if any(producer(softmax.inputs[0], op) is not None for op in ("Add", "Min")):
        return "the mask is an input"
    if scores is None or weighted is None:
        return "another rule has split its scores or its sums"
    if softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return "its softmax is not over the keys"
    if operand(weighted, 1).is_graph_input():
        return "its keys and values are computed in another component"
    key, value = _heads_merged(scores.inputs[1], KEY_PERM), _heads_merged(weighted.inputs[1], VALUE_PERM)
    heads, ending = heads_of(weighted), _ending(weighted.outputs[0])
    if key is None or value is None or heads is None or ending is None:
        return "another rule has removed its keys or values"
    query = _query_operand(operand(scores, 0))
    if query is None:
        return "its queries are not split into heads"
    return Attention(scores, weighted, heads, *query, key, value, ending)


def _heads_merged(value: ir.Value | None, perm: tuple[int, ...]) -> ir.Value | None:
    """The value (B, rows, heads * width) behind Reshape and Transpose to heads, or None."""
    transposed = producer(value, "Transpose")
    reshaped = producer(transposed.inputs[0], "Reshape") if transposed else None
    if transposed is None or reshaped is None or tuple(transposed.attributes["perm"].as_ints()) != perm:
        return None
    merged = operand(reshaped, 0)
    return merged if _rank(merged) == 3 else None


def _rank(value: ir.Value) -> int:
    return len(value.shape) if value.shape is not None else 0


def _query_operand(query: ir.Value) -> tuple[ir.Value | Array, float] | None:
    """Queries (B or 1, N, heads * E) and the factor that scales them, or None."""
    constant, scale = array_of(query), 1.0
    if constant is not None:
        return np.ascontiguousarray(constant.transpose(0, 2, 1, 3)).reshape(*constant.shape[::2], -1), scale
    scaled = producer(query, "Mul")
    factor = array_of(scaled.inputs[1]) if scaled else None
    if scaled is not None and factor is not None and factor.size == 1:
        query, scale = operand(scaled, 0), float(factor.reshape(()))
    spread = producer(query, "Expand")  # queries of one row, over the batch
    merged = _heads_merged(operand(spread, 0) if spread else query, VALUE_PERM)
    return None if merged is None else (merged, scale)


def _ending(weighted: ir.Value) -> ir.Node | None:
    """The Reshape that merges the heads, or None."""
    transposed = _only_reader(weighted, "Transpose")
    if transposed is None or tuple(transposed.attributes["perm"].as_ints()) != VALUE_PERM:
        return None
    merged = _only_reader(transposed.outputs[0], "Reshape")
    return merged if merged is not None and _rank(merged.outputs[0]) == 3 else None


def _only_reader(value: ir.Value, op: str) -> ir.Node | None:
    """Who reads a value first and alone, if that node is of this type."""
    readers = list(value.uses())
    if len(readers) != 1 or value.is_graph_output():
        return None
    node, index = readers[0]
    return node if node.op_type == op and index == 0 else None


def _sizes(attention: Attention, shapes: Shapes) -> HeadSizes:
    *_, queries, keys = shapes[str(attention.scores.outputs[0].name)]
    width, values = (shapes[str(operand(n, i).name)][-1] for n, i in ((attention.scores, 0), (attention.weighted, 1)))
    return queries, keys, width, values


def on_cuda(of: HeadSizes, precision: str) -> str:
    """The fused CUDA kernel for attention of these sizes; empty if there is none."""
    queries, keys, width, values = of
    if width % HEAD_MULTIPLE or values % HEAD_MULTIPLE or max(width, values) > MAX_EFFICIENT_HEAD:
        return ""
    if precision == "fp32":
        return "memory efficient" if max(queries, keys) >= MIN_FP32_ROWS else ""
    return "flash" if width == values <= MAX_FLASH_HEAD else "memory efficient"


def on_processors(of: HeadSizes, precision: str) -> str:
    """The processor's blocked FP32 kernel, for sizes at which it is faster; otherwise empty."""
    queries, keys, _, _ = of
    return "in blocks" if min(queries, keys) >= MIN_BLOCKED_ROWS else ""


KERNELS: Mapping[str, Callable[[HeadSizes, str], str]] = {"cuda": on_cuda, "cpu": on_processors}
"""By target: the name of the fused kernel for given sizes and precision, or an empty string."""


def _fuse(graph: ir.Graph, attention: Attention) -> None:
    build = NodeBuilder(graph, attention.name, attention.ending)
    query = _over_batch(build, attention.query, attention.key)
    made = build(
        OPERATOR,
        query,
        attention.key,
        attention.value,
        name="fused",
        domain=DOMAIN,
        num_heads=attention.heads,
        scale=attention.scale,
    )
    replace(attention.ending.outputs[0], made)


def _over_batch(build: NodeBuilder, query: ir.Value | Array, key: ir.Value) -> ir.Value | Array:
    """The queries expanded to the batch of the keys: the operator does not broadcast."""
    assert key.shape is not None  # `_heads_merged` saw it
    rows = query.shape[0] if query.shape is not None else None
    unknown = isinstance(rows, ir.SymbolicDim) and rows.value is None
    if rows == key.shape[0] and not unknown:
        return query
    batch = build("Shape", key, name="batch", start=0, end=1)
    shape = build("Concat", batch, ints(1, 1), axis=0, name="batch")
    return build("Expand", query, shape, name="queries")


ATTENTION_FORM = RewriteRule("attention-form", "attention as one operator, where the backend has a fused kernel", apply)
