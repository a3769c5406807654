"""Tasks: how an output is scored, by the form of its targets.

| Task | Output | Target of one sample |
|---|---|---|
| classification | (batch, classes) | class number |
| tokens | (batch, length, vocabulary) | ids (length,); negative ones are not scored |
| flow | (batch, height, width, 2) | flow of the same size; NaN where it is not known |
| reconstruction | rank 3 or more | numbers of the same shape |
| regression | (batch,) or (batch, numbers) | numbers of the same shape, or one number |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from perceiver_runtime.errors import DatasetError
from perceiver_runtime.evaluation.dense import Flow, Reconstruction, Tokens
from perceiver_runtime.evaluation.metrics import Classification, Regression
from perceiver_runtime.tensors import Array, TensorSpec


class Metric(Protocol):
    """Scores an output batch by batch."""

    def add(self, output: Array, targets: Array, /) -> None:
        """Count a batch."""

    def result(self) -> Any:
        """A frozen dataclass of numbers."""


@dataclass(frozen=True)
class Task:
    """One kind of task.

    Attributes:
        metric: Makes its metric from the names of the classes.
        compared: Fields of the result that are compared.
        score: A field that is a share, and whether a larger one is better: what an accuracy budget bounds.
    """

    metric: Callable[[Sequence[str]], Metric]
    compared: tuple[str, ...]
    score: tuple[str, bool] | None = None

    def share(self, result: Any) -> float | None:
        """The score of a result, larger is better; None where the task has none."""
        if self.score is None:
            return None
        name, rises = self.score
        value: float = getattr(result, name)
        return value if rises else 1.0 - value


class Numbers(Regression):
    """Scores outputs (N, 1) against one number for each sample, too."""

    def add(self, predicted: Array, targets: Array) -> None:
        """Count a batch. Raises as `Regression.add` does."""
        super().add(predicted[:, 0] if targets.ndim == 1 and predicted.shape[1:] == (1,) else predicted, targets)


TASKS: Mapping[str, Task] = {
    "classification": Task(Classification, ("accuracy", "top_5", "precision", "recall", "f1"), ("accuracy", True)),
    "tokens": Task(lambda _: Tokens(), ("accuracy", "bits_per_byte"), ("accuracy", True)),
    "flow": Task(lambda _: Flow(), ("epe", "fl_all"), ("fl_all", False)),
    "reconstruction": Task(lambda _: Reconstruction(), ("psnr",)),
    "regression": Task(lambda _: Numbers(), ("mae", "mape")),
}


def task_of(spec: TensorSpec, dtype: np.dtype[Any], rank: int) -> str:
    """The task of an output, from the type and rank of one sample's target. Raises DatasetError if none fits."""
    whole, shape = dtype.kind in "iu", spec.shape[1:]
    if whole and rank == 0 and spec.rank == 2:
        return "classification"
    if whole and rank == 1 and spec.rank == 3:
        return "tokens"
    if dtype.kind == "f" and rank == len(shape) == 3 and shape[-1] == 2:
        return "flow"
    if dtype.kind == "f" and rank == len(shape) >= 2:
        return "reconstruction"
    if dtype.kind == "f" and (rank == len(shape) or (rank == 0 and shape in ((1,), ()))):
        return "regression"
    raise DatasetError(
        f"targets of {spec}: expected class numbers, ids, a flow, or numbers of its shape, got {dtype} of rank {rank} "
        "for a sample"
    )


def check_target(spec: TensorSpec, task: str, target: Array) -> None:
    """Raise DatasetError for the target of one sample that is out of range, or not finite."""
    if task in ("classification", "tokens") and isinstance(spec.shape[-1], int):
        low, high = (0 if task == "classification" else target.min(initial=0)), spec.shape[-1] - 1
        if target.size and (target.min() < low or target.max() > high):
            worst = target.max() if target.max() > high else target.min()
            raise DatasetError(f"target of {spec.name}: expected 0 to {high}, got {worst}")
    if task in ("regression", "reconstruction") and not np.isfinite(target).all():
        raise DatasetError(f"target of {spec.name}: expected finite numbers, got NaN or infinity")
    sizes = [n for n in spec.shape[1:] if isinstance(n, int)]
    if task in ("flow", "reconstruction") and len(sizes) == target.ndim and list(target.shape) != sizes:
        raise DatasetError(f"target of {spec.name}: expected {sizes}, got {list(target.shape)}")
