"""Floating-point types narrower than FP32, with their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

HEADROOM = 4.0
"""Factor by which other inputs may exceed golden and calibration inputs, and partial sums their total."""


@dataclass(frozen=True)
class Format:
    """A type, as ONNX, NumPy and PyTorch name it.

    Attributes:
        largest: Its largest finite number.
        exact: Largest integer up to which it represents every integer.
        max_addends: How many equal numbers it can accumulate one by one: FP16 overflows, BF16 loses increments
            (256 + 1 is 256).
        min_peak: A tensor whose largest magnitude is below has few significant digits, or none.
        functions: Pointwise functions that backends compute in the type.
        since: The operator set in which an operator got the type, if not from the start.
    """

    name: str
    dtype: ir.DataType
    numpy: npt.DTypeLike
    torch: Any
    largest: float
    exact: int
    max_addends: int
    min_peak: float
    functions: frozenset[str]
    since: Mapping[str, int] = field(default_factory=dict)

    @property
    def max_peak(self) -> float:
        """Largest magnitude that a tensor may reach on golden and calibration inputs."""
        return self.largest / HEADROOM

    def holds(self, peak: float) -> bool:
        """Whether a tensor of that largest magnitude fits."""
        return peak == 0.0 or self.min_peak <= peak <= self.max_peak


FUNCTIONS = frozenset({"Gelu", "Erf", "Relu", "Tanh", "Sigmoid"})
FP16 = Format("fp16", ir.DataType.FLOAT16, np.float16, torch.float16, 65_504.0, 2_048, 65_504, 2.0**-20, FUNCTIONS)
BF16 = Format(
    "bf16",
    ir.DataType.BFLOAT16,
    ml_dtypes.bfloat16,
    torch.bfloat16,
    float.fromhex("0x1.fep127"),
    256,
    256,
    2.0**-122,
    frozenset({"Gelu", "Relu"}),  # ONNX Runtime's CUDA provider has no BF16 kernel for the others
    {"Conv": 22},
)
