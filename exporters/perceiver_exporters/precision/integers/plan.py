"""What is decided of a component before it is quantised: shared by the graph's rewrite and PyTorch's emulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perceiver_exporters.precision.calibration.statistics import Extremes, Statistics

Modules = tuple[str, ...]
"""Paths of PyTorch modules: of the one that runs, then of all that hold one weight. A graph names it by any of them."""


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

    def layer(self, modules: Modules) -> str:
        """The layer of one of these modules: itself, or one above, where a rule has merged several."""
        if (found := next((module for module in modules if module in self.layers), None)) is not None:
            return found
        for module in modules:
            path = module
            while path not in self.layers and "." in path:
                path = path.rpartition(".")[0]
            if path in self.layers:
                return path
        return modules[0]

    def quantizes(self, layer: str) -> bool:
        """Whether a layer computes in integers; so does a weight of no layer, as tied embeddings are."""
        return layer not in self.kept and (not self.layers or not layer or layer in self.layers)


Plan = Mapping[str, ComponentPlan]
"""By component."""
