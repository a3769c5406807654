"""Fake quantization in PyTorch: rounding to integers and back."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver_exporters.precision.calibration.methods import Bounds
from perceiver_exporters.precision.integers.scheme import Scheme


def round_activation(x: Tensor, bounds: Bounds, scheme: Scheme) -> Tensor:
    """Fake-quantise per tensor: to 255 symmetric or 256 asymmetric levels over the range."""
    scale, zero = scheme.activations(bounds)
    least, most = (-127, 127) if scheme.symmetric else (0, 255)
    return ((x / float(scale)).round() + zero).clamp(least, most).sub(zero) * float(scale)


def round_weight(weight: Tensor, axis: int, scheme: Scheme) -> Tensor:
    """Fake-quantise per output channel, symmetrically."""
    low, high = scheme.weights
    others = [i for i in range(weight.ndim) if i != axis]
    scale = 2 * weight.abs().amax(others, keepdim=True) / (high - low)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight / scale).round().clamp(low, high) * scale


def range_of(x: Tensor) -> Bounds:
    """The extremes of a tensor, including zero, as in ONNX DynamicQuantizeLinear."""
    low, high = torch.aminmax(x)
    return min(0.0, float(low)), max(0.0, float(high))
