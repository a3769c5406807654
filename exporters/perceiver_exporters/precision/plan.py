"""What is decided of a component before it is quantised: shared by the graph's rewrite and PyTorch's emulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perceiver_exporters.precision.calibration.statistics import Extremes, Statistics


@dataclass(frozen=True)
class ComponentPlan:
    """`method` (of METHODS) makes ranges of the statistics.

    By layer: `divisors` are vectors over input channels by which activations are divided and the weight multiplied;
    `kept` layers stay in FP32.
    """

    statistics: Statistics
    method: str = "minmax"
    divisors: Mapping[str, Extremes] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()


Plan = Mapping[str, ComponentPlan]
"""By component."""
