"""How a calibrated precision is to be had."""

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
"""Runs a model, given its feeds and the names of the outputs that are wanted."""


@dataclass(frozen=True)
class Budget:
    """What a deployed model may lose: `points` (hundredths) of each score that `score` gives a model, by name.

    A score is a share in [0, 1], an accuracy say, and larger is better.
    """

    points: float
    score: Callable[[Run], Mapping[str, float]]


@dataclass(frozen=True)
class QuantizationOptions:
    """`calibration` is a method of METHODS; `overrides` give some components another one.

    `cache` is a directory for calibration statistics (None: nothing is kept); `smooth` allows scale migration where
    it lowers the measured error; `budget` starts a search for the layers to keep in FP32; `reduce_range` gives weights
    7 bits, so that no processor's sums of their products saturate.
    """

    calibration: str = "minmax"
    overrides: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None
    smooth: bool = True
    budget: Budget | None = None
    reduce_range: bool = False

    def method(self, component: str) -> str:
        """The component's calibration method."""
        return self.overrides.get(component, self.calibration)

    def scheme(self, target: Target) -> Scheme:
        """The integers that the target's kernels take."""
        return SCHEMES[target.reduced if self.reduce_range else target.quantization]

    def check(self, components: tuple[str, ...]) -> None:
        """Raise UsageError for a method or component that there is not."""
        if unknown := sorted({self.calibration, *self.overrides.values()} - set(METHODS)):
            raise UsageError(f"calibration {', '.join(unknown)}: expected one of {', '.join(METHODS)}")
        if unknown := sorted(set(self.overrides) - set(components)):
            raise UsageError(f"calibration of {', '.join(unknown)}: the components are {', '.join(components)}")
        if self.budget is not None and not self.budget.points >= 0:
            raise UsageError(f"accuracy budget: expected 0 or more points, got {self.budget.points}")


DEFAULTS = QuantizationOptions()
