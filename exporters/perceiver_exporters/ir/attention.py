"""ONNX translation of scaled_dot_product_attention: two products and a softmax, which every backend fuses.

PyTorch's translation transposes the keys by reshapes to shapes computed at run time, which defeats shape inference, and
scales both operands. This one transposes by axis and scales the queries only: there are fewer of them than scores, and
FP16 products stay in range.
"""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
import onnxscript
from onnxscript.onnx_types import TensorType

op: Any = onnxscript.opset20

LOWEST_SCORE, HIGHEST_SCORE = -65504.0, 65504.0
"""The finite range of FP16. A boolean mask clamps scores to one of the limits, so that no precision overflows."""


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
    """softmax(query key^T * scale + mask) value.

    Args:
        query: (B, heads, N, E).
        key: (B, heads, M, E), or with `enable_gqa` (B, groups, M, E).
        value: (B, heads, M, F), or with `enable_gqa` (B, groups, M, F).
        attn_mask: True for keys to attend, or floats that are added to the scores; broadcasts to (B, heads, N, M).
        dropout_p: Not supported but for 0.
        is_causal: Whether query i attends keys up to i only.
        scale: Factor of the scores; 1 / sqrt(E) if None.
        enable_gqa: Whether as many heads of queries as there are in a group share one head of keys and values.

    Returns:
        (B, heads, N, F). As in PyTorch, zeros for a query whose keys are all masked.
    """
    if dropout_p:
        raise NotImplementedError("dropout of scaled_dot_product_attention is not supported: call eval() on the module")
    heads, groups, width, value_width = (_size(v, i) for v, i in ((query, 1), (key, 1), (query, 3), (value, 3)))
    grouped = enable_gqa and heads != groups
    factor = scale if scale is not None else _default_scale(query)
    scaled = op.Mul(query, op.Constant(value_float=factor))
    if grouped:  # heads that share keys become rows of one head
        scaled = _reshaped(scaled, 0, groups, -1, width)
    scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))
    masked = is_causal or attn_mask is not None
    if grouped and masked:
        scores = _reshaped(scores, 0, heads, -1, 0)
    attends = None
    if is_causal:  # excludes attn_mask; every query attends the first key
        scores = op.Min(scores, _limit(_causal(query, key)))
    if attn_mask is not None:
        scores, attends = _masked(scores, attn_mask)
    weights = op.Softmax(scores, axis=-1)
    if grouped and masked:
        weights = _reshaped(weights, 0, groups, -1, 0)
    attended = op.MatMul(weights, value)
    if grouped:
        attended = _reshaped(attended, 0, heads, -1, value_width)
    result: TensorType = attended if attends is None else op.Where(attends, attended, op.Constant(value_float=0.0))
    return result


def _size(value: Any, axis: int) -> Any:
    return value.shape[axis]


def _reshaped(value: Any, *dims: int) -> Any:
    """Reshape; 0 copies the dimension at that place, -1 is what remains."""
    return op.Reshape(value, op.Constant(value_ints=list(dims)))


def _masked(scores: Any, mask: Any) -> tuple[Any, Any]:
    """Masked scores, and whether each query attends any key (..., N or 1, 1)."""
    last = op.Constant(value_ints=[-1])
    if mask.dtype != ir.DataType.BOOL:
        return op.Add(scores, mask), op.Not(op.IsInf(op.ReduceMax(mask, last, keepdims=1), detect_positive=0))
    limit = _limit(mask)
    zero = op.Constant(value_float=0.0)
    return op.Min(scores, limit), op.Greater(op.ReduceMax(limit, last, keepdims=1), zero)


def _limit(mask: Any) -> Any:
    """Upper limits of the scores for a boolean mask."""
    return op.Where(mask, op.Constant(value_float=HIGHEST_SCORE), op.Constant(value_float=LOWEST_SCORE))


def _causal(query: Any, key: Any) -> Any:
    """Boolean mask (N, M) by which query i attends keys up to i."""
    rows, columns = (_positions(value) for value in (query, key))
    return op.GreaterOrEqual(op.Unsqueeze(rows, op.Constant(value_ints=[1])), columns)


def _positions(value: Any) -> Any:
    """Indices 0 to N - 1 for (B, heads, N, E)."""
    tokens = op.Squeeze(op.Shape(value, start=2, end=3))
    return op.Range(op.Constant(value_int=0), tokens, op.Constant(value_int=1))


def _default_scale(query: Any) -> float:
    width = float(query.shape[-1])
    return 1.0 / math.sqrt(width)
