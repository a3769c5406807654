"""Options of quantization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perceiver_exporters.precision.calibration import METHODS
from perceiver_exporters.precision.integers.scheme import SCHEMES, Scheme
from perceiver_exporters.reference import Feeds
from perceiver_exporters.targets.target import Target
from perceiver_runtime.errors import UsageError
from perceiver_runtime.tensors import Array

Run = Callable[[Feeds, tuple[str, ...]], Mapping[str, Array]]
"""Runs a model on feeds and returns the named outputs."""


@dataclass(frozen=True)
class Budget:
    """The accuracy that a deployed model may lose.

    Attributes:
        points: Hundredths of a score.
        score: Scores a model by name; a score is a share in [0, 1], such as an accuracy, and larger is better.
    """

    points: float
    score: Callable[[Run], Mapping[str, float]]


@dataclass(frozen=True)
class QuantizationOptions:
    """How int8 and int8-dynamic are quantised.

    Attributes:
        calibration: Method of `METHODS` that turns statistics into ranges.
        overrides: Other methods by component.
        cache: Directory of calibration statistics (None: they are not kept).
        smooth: Whether scale migration is applied where it lowers the measured error.
        budget: Accuracy that may be lost; layers are kept in FP32 until it is met (None: no layer is).
        reduce_range: 7-bit weights, so that 16-bit sums of their products can't saturate.
        attention: Whether the products of attention, of two activations, are quantised as well.
    """

    calibration: str = "minmax"
    overrides: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None
    smooth: bool = True
    budget: Budget | None = None
    reduce_range: bool = False
    attention: bool = False

    def method(self, component: str) -> str:
        """Calibration method of a component."""
        return self.overrides.get(component, self.calibration)

    def scheme(self, target: Target) -> Scheme:
        """The integers of the target's kernels."""
        return SCHEMES[target.reduced if self.reduce_range else target.quantization]

    def check(self, components: tuple[str, ...]) -> None:
        """Raise UsageError for an unknown method or component."""
        if unknown := sorted({self.calibration, *self.overrides.values()} - set(METHODS)):
            raise UsageError(f"calibration (--calibration): expected {', '.join(METHODS)}, got {', '.join(unknown)}")
        if unknown := sorted(set(self.overrides) - set(components)):
            raise UsageError(
                f"calibration (--calibration): expected components of {', '.join(components)}, got {', '.join(unknown)}"
            )
        if self.budget is not None and not self.budget.points >= 0:
            raise UsageError(
                f"max_accuracy_drop (--max-accuracy-drop): expected 0 or more points, got {self.budget.points}"
            )


DEFAULTS = QuantizationOptions()
