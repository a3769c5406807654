"""Fake quantizers, which quantisation-aware training leaves in a module, as QuantizeLinear and DequantizeLinear.

torch.export runs operators inside `torch.fake_quantize_per_tensor_affine` and its like that have no shape function;
they get one here. Only 8 bits are translated: no kernel keeps the scales of fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import onnxscript
import torch
from onnxscript.onnx_types import TensorType
from torch import Tensor

op: Any = onnxscript.opset20
_aten = torch.ops.aten
RANGES = {True: (-128, 127), False: (0, 255)}
"""Integers of 8 bits, by whether they are signed."""
MIN_LEVELS = 127
"""Steps of the smallest range that counts as 8 bits: PyTorch's own for kernels that add in 16 bits is 0 to 127."""


def per_tensor(x: TensorType, scale: float, zero_point: int, quant_min: int, quant_max: int) -> TensorType:
    """One scale, known when traced."""
    parts = op.Constant(value_float=scale), op.Constant(value_int=zero_point)
    return _quantized(x, *parts, quant_min, quant_max)


def per_tensor_from_tensors(
    x: TensorType, scale: TensorType, zero_point: TensorType, quant_min: int, quant_max: int
) -> TensorType:
    """One scale, in a buffer."""
    shape = op.Constant(value_ints=[])
    return _quantized(x, op.Reshape(scale, shape), op.Reshape(zero_point, shape), quant_min, quant_max)


def per_channel(
    x: TensorType, scale: TensorType, zero_point: TensorType, axis: int, quant_min: int, quant_max: int
) -> TensorType:
    """A scale for each index along an axis."""
    return _quantized(x, scale, zero_point, quant_min, quant_max, axis)


def _quantized(x: Any, scale: Any, zero: Any, low: int, high: int, axis: int | None = None) -> TensorType:
    smallest, largest = RANGES[low < 0]
    if low < smallest or high > largest or high - low < MIN_LEVELS:
        raise NotImplementedError(f"fake quantization to integers from {low} to {high}: only 8 bits are kept")
    if (low, high) != (smallest, largest):
        x = _limited(x, scale, zero, low, high, axis)
    kind = ir.DataType.INT8 if low < 0 else ir.DataType.UINT8
    given = {} if axis is None else {"axis": axis}
    parts = (scale, op.Cast(zero, to=kind))
    made: TensorType = op.DequantizeLinear(op.QuantizeLinear(x, *parts, **given), *parts, **given)
    return made


def _limited(x: Any, scale: Any, zero: Any, low: int, high: int, axis: int | None) -> Any:
    """Values within a part of the integers' range, such as -127 to 127."""
    step, offset = scale, op.Cast(zero, to=ir.DataType.FLOAT)
    if axis is not None:
        shape = op.Constant(value_ints=[-1 if i == axis else 1 for i in range(len(x.shape))])
        step, offset = op.Reshape(step, shape), op.Reshape(offset, shape)
    ends = [op.Mul(op.Sub(op.Constant(value_float=float(end)), offset), step) for end in (low, high)]
    return op.Min(op.Max(x, ends[0]), ends[1])


def _like(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


FAKE_QUANTIZERS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    _aten.fake_quantize_per_tensor_affine.default: per_tensor,
    _aten.fake_quantize_per_tensor_affine.tensor_qparams: per_tensor_from_tensors,
    _aten.fake_quantize_per_channel_affine.default: per_channel,
}
"""ONNX translations."""

INNER = (
    "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    "fake_quantize_per_channel_affine_cachemask",
)
"""The operators inside of these, which return a mask for gradients as well."""
_LIBRARY: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
for _name in INNER:
    _LIBRARY.impl(_name, _like, "Meta")
