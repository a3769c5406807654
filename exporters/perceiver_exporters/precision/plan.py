"""What is decided of a component before it is quantised: shared by the graph's rewrite and PyTorch's emulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perceiver_exporters.precision.calibration.statistics import Extremes, Statistics


@dataclass(frozen=True)
class ComponentPlan:
    """`method` (of METHODS) makes ranges of the statistics.

    By layer: `divisors` are vectors over input channels by which activations are divided and the weight multiplied;
    `kept` layers stay in FP32. `layers` are those of the graph (empty: not known); rules may have folded others away.
    """

    statistics: Statistics
    method: str = "minmax"
    divisors: Mapping[str, Extremes] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()

    def layer(self, module: str) -> str:
        """The layer that holds a module's weight: its own, or one above it, where a rule has merged several."""
        path = module
        while path not in self.layers and "." in path:
            path = path.rpartition(".")[0]
        return path if path in self.layers else module

    def quantizes(self, layer: str) -> bool:
        """Whether a layer computes in integers."""
        return layer not in self.kept and (not self.layers or layer in self.layers)


Plan = Mapping[str, ComponentPlan]
"""By component."""
