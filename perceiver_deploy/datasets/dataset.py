"""A labelled data set with preprocessed inputs: for calibration and for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from perceiver_runtime.tensors import Array

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Scored:
    """One model output and its held-out samples: inputs, samples first, and targets.

    Targets are class numbers (N,), named in order by `labels`, or numbers (N,) or (N, T) in their own unit.
    """

    output: str
    task: Task
    held_out: Mapping[str, Array]
    targets: npt.NDArray[Any]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Inputs as the model takes them (preprocessed, by tensor name, samples first), and targets.

    Attributes:
        name: Name of the data set.
        labels: Names of the classes in order.
        calibration: Inputs from the training split.
        held_out: Inputs from the test split, disjoint from `calibration`.
        targets: Class numbers (N,) of `held_out`.
        output: The model's main output.
        more: Other outputs, with held-out samples of their own.
    """

    name: str
    labels: tuple[str, ...]
    calibration: Mapping[str, Array]
    held_out: Mapping[str, Array]
    targets: npt.NDArray[Any]
    output: str = "logits"
    more: tuple[Scored, ...] = ()

    @property
    def scored(self) -> tuple[Scored, ...]:
        """All outputs that are scored, the main one first."""
        return (Scored(self.output, "classification", self.held_out, self.targets, self.labels), *self.more)
