"""Schemes: the integers that the INT8 kernels of each backend take."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from perceiver_exporters.precision.calibration.methods import Bounds

WEIGHT_RANGE = (-127, 127)
REDUCED_RANGE = (-64, 64)
"""ONNX Runtime's `reduce_range`: two products with 255 add up to 32,640, which fits 16 bits."""


@dataclass(frozen=True)
class Scheme:
    """The integers that a backend's kernels take. Weights are always signed and symmetric.

    Attributes:
        activation: `uint8` or `int8`.
        symmetric: Whether the zero point of activations is 0.
        bias: Whether biases are quantised to INT32.
        conv_output: Whether outputs of convolutions are quantised.
        plain_relu: Whether Relu and Clip behind a product become Max and Min (see `relu_clip`).
        reduced: Whether weights have 7 bits.
    """

    activation: str
    symmetric: bool
    bias: bool
    conv_output: bool
    plain_relu: bool
    reduced: bool = False

    @property
    def weights(self) -> tuple[int, int]:
        """Smallest and largest integer of a weight."""
        return REDUCED_RANGE if self.reduced else WEIGHT_RANGE

    def activations(self, bounds: Bounds) -> tuple[np.float32, int]:
        """Scale and zero point of an activation whose range is `bounds`."""
        low, high = bounds
        if self.symmetric:
            return np.float32(max(-low, high) / 127) or np.float32(1), 0
        scale = np.float32((high - low) / 255) or np.float32(1)
        return scale, round(float(-low / scale))


_CPU = Scheme("uint8", symmetric=False, bias=True, conv_output=True, plain_relu=True)
SCHEMES = {
    "": Scheme("", symmetric=False, bias=False, conv_output=False, plain_relu=False),  # no integer kernels; unused
    # Signed weights: VNNI and AMX multiply unsigned by signed integers only. Without VNNI such products add pairs in 16
    # bits and saturate, which adds to a layer's error unseen; sessions avoid it there (see
    # perceiver_runtime.backends.integer_products). ONNX Runtime's integer Gemm wants its bias in integers, too, and its
    # integer convolution an output scale; without, they compute in floating point. So does a product whose only reader
    # is a Relu or Clip that no quantiser follows: it is taken for the first half of a pattern that does not match.
    "cpu": _CPU,
    # Weights that can't saturate are left signed, and run in the fast kernels without VNNI too.
    "cpu-reduced": dataclasses.replace(_CPU, reduced=True),
    # TensorRT takes symmetric INT8 only, and refuses INT32 biases.
    "tensorrt": Scheme("int8", symmetric=True, bias=False, conv_output=False, plain_relu=False),
}
