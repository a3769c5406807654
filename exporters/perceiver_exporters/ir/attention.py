"""How attention is written in ONNX: two products and a softmax, the form that every backend fuses.

The stock translation transposes the keys by reshaping through shapes computed at run time, which hides the
attention's sizes from shape inference, and scales both operands. Here the keys are transposed by axis, and the
scale is applied once, to the queries: they are fewer than the scores, and FP16 products stay in range.
"""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
import onnxscript
from onnxscript.onnx_types import TensorType

op: Any = onnxscript.opset20

LOWEST_SCORE, HIGHEST_SCORE = -65504.0, 65504.0
"""The finite range of FP16. A boolean mask limits scores to one or the other, so that no precision overflows."""


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

    A boolean mask is true where a key may be attended, a float mask is added to the scores; `is_causal` masks the keys
    behind a query's own place. As in PyTorch, a query
    that may attend no key (its masks are all false, or minus infinity) gets zeros.
    """
    if enable_gqa or dropout_p:
        raise NotImplementedError("grouped queries and dropout of scaled_dot_product_attention are not supported")
    factor = scale if scale is not None else _default_scale(query)
    scaled = op.Mul(query, op.Constant(value_float=factor))
    scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
    attends = None
    if is_causal:  # never beside a mask; a query always attends the first key
        scores = op.Min(scores, _limit(_causal(query, key)))
    if attn_mask is not None:
        scores, attends = _masked(scores, attn_mask)
    attended = op.MatMul(op.Softmax(scores, axis=-1), value)
    result: TensorType = attended if attends is None else op.Where(attends, attended, op.Constant(value_float=0.0))
    return result


def _masked(scores: Any, mask: Any) -> tuple[Any, Any]:
    """Scores under a mask, and whether (..., N or 1, 1) a query may attend any key."""
    last = op.Constant(value_ints=[-1])
    if mask.dtype != ir.DataType.BOOL:
        return op.Add(scores, mask), op.Not(op.IsInf(op.ReduceMax(mask, last, keepdims=1), detect_positive=0))
    limit = _limit(mask)
    zero = op.Constant(value_float=0.0)
    return op.Min(scores, limit), op.Greater(op.ReduceMax(limit, last, keepdims=1), zero)


def _limit(mask: Any) -> Any:
    """What scores may be at most."""
    return op.Where(mask, op.Constant(value_float=HIGHEST_SCORE), op.Constant(value_float=LOWEST_SCORE))


def _causal(query: Any, key: Any) -> Any:
    """(N, M): query i may attend the keys up to key i."""
    rows, columns = (_positions(value) for value in (query, key))
    return op.GreaterOrEqual(op.Unsqueeze(rows, op.Constant(value_ints=[1])), columns)


def _positions(value: Any) -> Any:
    """0, 1, ... for the tokens of (B, heads, N, E)."""
    tokens = op.Squeeze(op.Shape(value, start=2, end=3))
    return op.Range(op.Constant(value_int=0), tokens, op.Constant(value_int=1))


def _default_scale(query: Any) -> float:
    width = float(query.shape[-1])
    return 1.0 / math.sqrt(width)
