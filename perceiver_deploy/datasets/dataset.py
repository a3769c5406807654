"""A labelled data set, ready for a model: what calibrates it and what it is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from perceiver_runtime.tensors import Array

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Scored:
    """One output of a model and the held-out samples that it is scored on: inputs, samples first, and targets.

    Targets are class numbers (N,), which `labels` names in order, or numbers (N,) or (N, T) in their own unit.
    """

    output: str
    task: Task
    held_out: Mapping[str, Array]
    targets: npt.NDArray[Any]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Inputs exactly as the model takes them (preprocessed, by tensor name, samples first) and their targets.

    `calibration` comes from the training split, `held_out` with its `targets` (N,) from the test split, so the two
    are disjoint. `labels` names the classes in order of their number. `output` is the model's main output, logits;
    `more` are its other outputs, on held-out samples of their own.
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
