"""Quantization plan: decisions on a component, shared by the graph rewrite and the emulation in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perceiver_exporters.precision.calibration.statistics import Extremes, Statistics

Modules = tuple[str, ...]
"""Paths of PyTorch modules: the running one, then all that hold the weight. A graph may use any of them."""


@dataclass(frozen=True)
class ComponentPlan:
    """How one component is quantised.

    Attributes:
        statistics: Statistics of its activations.
        method: Method of METHODS that turns them into ranges.
        divisors: By layer, a vector over input channels: activations are divided by it, the weight is multiplied.
        kept: Layers that stay in FP32.
        layers: All layers of the graph (empty: unknown); rewrite rules may have folded others away.
        attention: Attentions whose products of activations are quantised, unless they are `kept`.
    """

    statistics: Statistics
    method: str = "minmax"
    divisors: Mapping[str, Extremes] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    attention: frozenset[str] = frozenset()

    def layer(self, modules: Modules) -> str:
        """The layer of one of these modules: itself, or a parent into which a rule merged several."""
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
        """Whether a layer is quantised; a weight without a layer, such as tied embeddings, is."""
        return layer not in self.kept and (not self.layers or not layer or layer in self.layers)


Plan = Mapping[str, ComponentPlan]
"""Plans by component."""
