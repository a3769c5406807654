"""ONNX translations of PyTorch operators that replace the exporter's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnxscript
import torch
from onnxscript.onnx_types import TensorType

from perceiver_exporters.ir.attention import scaled_dot_product_attention
from perceiver_exporters.ir.einsum import einsum
from perceiver_exporters.ir.fake_quantize import FAKE_QUANTIZERS

op: Any = onnxscript.opset20


def one_hot(ids: TensorType, num_classes: int = -1) -> TensorType:
    """One-hot encoding of ids (...) as (..., num_classes).

    PyTorch's translation compares with all classes, from which the valid range of ids can't be derived.
    """
    if num_classes < 0:
        raise NotImplementedError("one_hot needs num_classes: a graph can't take it from the largest id")
    encoded: TensorType = op.OneHot(ids, op.Constant(value_ints=[num_classes]), op.Constant(value_ints=[0, 1]), axis=-1)
    return encoded


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
    torch.ops.aten.one_hot.default: one_hot,
    torch.ops.aten.einsum.default: einsum,
    **FAKE_QUANTIZERS,
}
