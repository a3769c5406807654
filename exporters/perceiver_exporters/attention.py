"""How attention is written in ONNX: two products and a softmax, the form that every backend fuses.

The stock translation transposes the keys by reshaping through shapes computed at run time, which hides the
attention's sizes from shape inference, and scales both operands. Here the keys are transposed by axis, and the
scale is applied once, to the queries: they are fewer than the scores, and FP16 products stay in range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import onnxscript
import torch
from onnxscript.onnx_types import TensorType

op: Any = onnxscript.opset20

EXCLUDED = -30_000.0
"""Added to the score of an excluded key: exp() of it is 0 in every precision, and FP16 can hold the sum."""


def scaled_dot_product_attention(
    query: TensorType,
    key: TensorType,
    value: TensorType,
    attn_mask: TensorType | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> TensorType:
    """softmax(query key^T * scale + mask) value, over (B, heads, N, E), (B, heads, M, E), (B, heads, M, F).

    A boolean mask is true where a key may be attended, a float mask is added to the scores.
    """
    if is_causal or enable_gqa or dropout_p:
        raise NotImplementedError("causal attention, grouped queries and dropout are no part of a Perceiver")
    factor = scale if scale is not None else _default_scale(query)
    scaled = op.Mul(query, op.Constant(value_float=factor))
    scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
    if attn_mask is not None:
        scores = op.Add(scores, _bias(attn_mask))
    result: TensorType = op.MatMul(op.Softmax(scores, axis=-1), value)
    return result


def _default_scale(query: Any) -> float:
    width = float(query.shape[-1])
    return 1.0 / math.sqrt(width)


def _bias(mask: Any) -> Any:
    if mask.dtype != ir.DataType.BOOL:
        return mask
    return op.Where(mask, op.Constant(value_float=0.0), op.Constant(value_float=EXCLUDED))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
}
