"""A labelled data set, ready for a model: what calibrates it and what it is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from perceiver_runtime.tensors import Array

Task = Literal["classification"]


@dataclass(frozen=True)
class Dataset:
    """Inputs exactly as the model takes them (preprocessed, by tensor name, samples first) and their targets.

    `calibration` comes from the training split, `held_out` with its `targets` (N,) from the test split, so the two
    are disjoint. `labels` names the classes in order of their number. `output` is the model's output that is scored.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    calibration: Mapping[str, Array]
    held_out: Mapping[str, Array]
    targets: npt.NDArray[Any]
    output: str = "logits"
