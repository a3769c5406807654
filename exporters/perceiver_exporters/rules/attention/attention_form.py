"""The form in which a target's backend has fast attention: as its products, or as one operator.

| Target | Form | Why |
|---|---|---|
| cuda | `com.microsoft.MultiHeadAttention` | scores stay on the chip; heads are neither transposed nor copied |
| cpu | the operator from 1024 queries and keys on | its blocks stay in the cache; scores of that size do not |
| cpu, fewer | products | no slower (`benchmarks/attention_form.py`), and standard ONNX |
| TensorRT | products | it fuses them; ONNX `Attention` is opset 23, above the 20 that all these targets read |

What ONNX Runtime's CUDA provider runs for the operator (`contrib_ops/cuda/bert/multihead_attention.cc`), tried in this
order, all over heads that lie side by side (B, rows, heads * width):

- flash attention: FP16; queries, keys and values of one width, a multiple of 8 up to 256; no mask; compute capability
  8.0 and newer;
- memory efficient attention (CUTLASS): FP16, and FP32 from 256 queries or keys on; widths that are multiples of 8 up to
  1024, values' another than queries';
- otherwise products and a softmax, as in the graph before.

Sums and softmax are in FP32 in all of them. BF16 came later (pull requests 26083 and 26894 of ONNX Runtime). A bias of
the scores would have to be stored for every query, and excludes flash attention: masked attention stays as it is.
What other rules have made of attention is none any more: its scores are sums, its sums over keys are split.

On processors the operator has FP32 kernels only; ONNX Runtime casts FP16 before and behind it, which is how bundles for
`cuda` are verified there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Draft, ints, replace
from perceiver_exporters.ir.fused_attention import DOMAIN, OPERATOR, VERSION
from perceiver_exporters.ir.sized import Shapes, SizedGraph, static_shapes
from perceiver_exporters.rules.matchers.attention import KEYS, VALUES, array_of, heads_of, operand, producer
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict
from perceiver_runtime.tensors import Array

AS_PRODUCTS: Mapping[str, str] = {
    "jetson-orin": "TensorRT fuses the products",
    "jetson-thor": "TensorRT fuses the products",
    "rtx": "TensorRT-RTX fuses the products",
    "hopper": "TensorRT fuses the products",
}
"""Targets that keep their products, and why."""

MULTIPLE, FLASH, EFFICIENT = 8, 256, 1024
"""Of a head's width, and the widest that flash and memory efficient attention take."""
LEAST_FP32 = 256
"""Queries or keys from which FP32 has a fused kernel on CUDA."""
LEAST_BLOCKS = 1024
"""Queries and keys from which a processor is faster in blocks of them."""


HeadSizes = tuple[int, int, int, int]
"""Queries, keys, and the width of a head in both and in the values."""


@dataclass(frozen=True)
class Attention:
    """Scores, a softmax and a weighting that one operator can replace.

    `query` (B or 1, N, heads * E) is scaled by `scale`; `key` (B, M, heads * E), `value` (B, M, heads * F); `ending`
    merges the heads again, (B, N, heads * F).
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
        """Name of the module that attends."""
        return str(self.scores.name).rsplit("/", 1)[0]


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Fuse every attention that has a fused kernel, on targets whose backend has them."""
    if context.target.name in AS_PRODUCTS:
        return Declined(AS_PRODUCTS[context.target.name])
    if context.precision == "bf16":
        return Declined("not every ONNX Runtime that reads this target has the operator in BF16")
    return fuse(sized, context, KERNELS[context.target.name])


def fuse(sized: SizedGraph, context: Context, kernel: Callable[[HeadSizes, str], str]) -> Verdict:
    """Fuse every plain attention that `kernel` names a kernel for, by sizes and precision."""
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
    """What a softmax is the middle of, or why it is no plain attention."""
    scores, weighted = producer(softmax.inputs[0], "MatMul"), _only_reader(softmax.outputs[0], "MatMul")
    if any(producer(softmax.inputs[0], op) is not None for op in ("Add", "Min")):
        return "the mask is an input"
    if scores is None or weighted is None:
        return "another rule has split its scores or its sums"
    if softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return "its softmax is not over the keys"
    if operand(weighted, 1).is_graph_input():
        return "its keys and values are made in another component"
    key, value = _heads_merged(scores.inputs[1], KEYS), _heads_merged(weighted.inputs[1], VALUES)
    heads, ending = heads_of(weighted), _ending(weighted.outputs[0])
    if key is None or value is None or heads is None or ending is None:
        return "another rule has taken its keys or values away"
    asked = _asked(operand(scores, 0))
    if asked is None:
        return "its queries are not split into heads"
    return Attention(scores, weighted, heads, *asked, key, value, ending)


def _heads_merged(value: ir.Value | None, perm: tuple[int, ...]) -> ir.Value | None:
    """Three axes, of which the last was split into heads."""
    transposed = producer(value, "Transpose")
    reshaped = producer(transposed.inputs[0], "Reshape") if transposed else None
    if transposed is None or reshaped is None or tuple(transposed.attributes["perm"].as_ints()) != perm:
        return None
    merged = operand(reshaped, 0)
    return merged if _rank(merged) == 3 else None


def _rank(value: ir.Value) -> int:
    return len(value.shape) if value.shape is not None else 0


def _asked(query: ir.Value) -> tuple[ir.Value | Array, float] | None:
    """Queries with their heads side by side, and what they are scaled by."""
    constant, scale = array_of(query), 1.0
    if constant is not None:
        return np.ascontiguousarray(constant.transpose(0, 2, 1, 3)).reshape(*constant.shape[::2], -1), scale
    scaled = producer(query, "Mul")
    factor = array_of(scaled.inputs[1]) if scaled else None
    if scaled is not None and factor is not None and factor.size == 1:
        query, scale = operand(scaled, 0), float(factor)
    spread = producer(query, "Expand")  # queries of one row, over the batch
    merged = _heads_merged(operand(spread, 0) if spread else query, VALUES)
    return None if merged is None else (merged, scale)


def _ending(weighted: ir.Value) -> ir.Node | None:
    """The node that merges the heads."""
    transposed = _only_reader(weighted, "Transpose")
    if transposed is None or tuple(transposed.attributes["perm"].as_ints()) != VALUES:
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
    """The fused kernel that CUDA has for an attention; empty if it has none."""
    queries, keys, width, values = of
    if width % MULTIPLE or values % MULTIPLE or max(width, values) > EFFICIENT:
        return ""
    if precision == "fp32":
        return "memory efficient" if max(queries, keys) >= LEAST_FP32 else ""
    return "flash" if width == values <= FLASH else "memory efficient"


def on_processors(of: HeadSizes, precision: str) -> str:
    """The processor's only kernel, where it pays: FP32, in blocks of queries and keys."""
    queries, keys, _, _ = of
    return "in blocks" if min(queries, keys) >= LEAST_BLOCKS else ""


KERNELS: Mapping[str, Callable[[HeadSizes, str], str]] = {"cuda": on_cuda, "cpu": on_processors}
"""By target: the kernel of an attention of these sizes in this precision, or nothing."""


def _fuse(graph: ir.Graph, attention: Attention) -> None:
    write = Draft(graph, attention.name, attention.ending)
    query = _over_batch(write, attention.query, attention.key)
    made = write(
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


def _over_batch(write: Draft, query: ir.Value | Array, key: ir.Value) -> ir.Value | Array:
    """The queries as often as there are keys: the operator does not broadcast."""
    assert key.shape is not None  # `_heads_merged` saw it
    rows = query.shape[0] if query.shape is not None else None
    unknown = isinstance(rows, ir.SymbolicDim) and rows.value is None
    if rows == key.shape[0] and not unknown:
        return query
    batch = write("Shape", key, name="batch", start=0, end=1)
    shape = write("Concat", batch, ints(1, 1), axis=0, name="batch")
    return write("Expand", query, shape, name="queries")


ATTENTION_FORM = RewriteRule("attention-form", "attention as the one operator that a target's backend has it in", apply)
