"""The floating point types narrower than FP32 that a graph's products may have, and where each of them ends."""

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
"""How much louder than golden and calibration inputs others may be, and partial sums than sums."""


@dataclass(frozen=True)
class Format:
    """A type, as ONNX, NumPy and PyTorch name it.

    `largest` is its largest finite number, `exact` the integer up to which it holds every integer, `keys` how many
    equal numbers it can add up one by one: FP16 overflows, BF16 stands still (256 + 1 is 256). `since` is the operator
    set that brought the type to an operator which has not had it all along. `functions` are the pointwise functions
    that backends compute in the type. A tensor whose largest magnitude is below `min_peak` keeps few digits, or none.
    """

    name: str
    dtype: ir.DataType
    numpy: npt.DTypeLike
    torch: Any
    largest: float
    exact: int
    keys: int
    min_peak: float
    functions: frozenset[str]
    since: Mapping[str, int] = field(default_factory=dict)

    @property
    def max_peak(self) -> float:
        """The largest magnitude that a tensor may reach on golden and calibration inputs."""
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
