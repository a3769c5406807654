"""Scores of what a data set evaluates, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perceiver_deploy.datasets.dataset import CUSTOM, Batch, Dataset, Samples, Scored
from perceiver_runtime.errors import UsageError
from perceiver_runtime.evaluation.tasks import TASKS
from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class CustomMetrics:
    """Means over the samples of what a function of the user's gave."""

    samples: int
    values: Mapping[str, float]


class Custom:
    """A function of the user's: `metric(outputs, targets)` gives numbers by name, each a mean or one per sample."""

    def __init__(self, scored: Scored) -> None:
        self._scored, self._samples = scored, 0
        self._sums: dict[str, float] = {}

    def add(self, outputs: Mapping[str, Array], part: Batch) -> None:
        """Count a batch. Raises UsageError for anything but finite numbers by name."""
        assert self._scored.metric is not None  # of a CUSTOM task
        found = self._scored.metric(dict(outputs), dict(part.targets))
        if not isinstance(found, Mapping) or not found:
            raise UsageError(
                f"metric (--metric): expected numbers by name, as {{'accuracy': 0.5}}, got {type(found).__name__}"
            )
        for name, value in found.items():
            numbers = np.asarray(value, np.float64) if np.asarray(value).dtype.kind in "biuf" else np.array(np.nan)
            if numbers.shape not in ((), (len(part),)) or not np.isfinite(numbers).all():
                raise UsageError(
                    f"metric (--metric): {name}: expected a finite number, or one for each of {len(part)} samples, "
                    f"got {value!r:.80}"
                )
            self._sums[str(name)] = self._sums.get(str(name), 0.0) + float(numbers.mean()) * len(part)
        self._samples += len(part)

    def result(self) -> CustomMetrics:
        """The means."""
        return CustomMetrics(self._samples, {name: total / self._samples for name, total in self._sums.items()})


class Side:
    """The scores of one model, the reference or a bundle, on what is scored."""

    def __init__(self, scored: Scored) -> None:
        self.scored = scored
        custom = scored.task == CUSTOM
        self._custom = Custom(scored) if custom else None
        self._metric = None if custom else TASKS[scored.task].metric(scored.labels)

    def add(self, outputs: Mapping[str, Array], part: Batch) -> None:
        """Count the outputs of a batch."""
        if self._custom is not None:
            self._custom.add(outputs, part)
        elif self._metric is not None:
            self._metric.add(outputs[self.scored.output], part.targets[self.scored.output])

    def result(self) -> Any:
        """Its metrics, a frozen dataclass."""
        return (self._custom or self._metric).result()  # type: ignore[union-attr]  # one of them is there

    def share(self) -> float:
        """The score that a budget bounds."""
        value = share(self.scored, self.result())
        assert value is not None  # see `bounded`
        return value


def compared(scored: Scored, result: Any) -> dict[str, float | None]:
    """The numbers of a result that are compared, by name."""
    if isinstance(result, CustomMetrics):
        return dict(result.values)
    return {name: getattr(result, name) for name in TASKS[scored.task].compared}


def share(scored: Scored, result: Any) -> float | None:
    """What of a result is a share of which a larger one is better; None if nothing is."""
    if isinstance(result, CustomMetrics):
        return result.values.get("accuracy")
    return TASKS[scored.task].share(result)


def share_name(scored: Scored) -> str:
    """The metric that is a share; empty if none is."""
    if scored.task == CUSTOM:
        return "accuracy"
    score = TASKS[scored.task].score
    return score[0] if score else ""


def bounded(dataset: Dataset) -> tuple[Scored, ...]:
    """What of a data set an accuracy budget can bound. Raises UsageError if nothing is."""
    found = tuple(each for each in dataset.scored if each.task in TASKS and TASKS[each.task].score is not None)
    if not found:
        tasks = ", ".join(dict.fromkeys(each.task for each in dataset.scored)) or "no targets"
        raise UsageError(
            f"max_accuracy_drop (--max-accuracy-drop): {dataset.name} has {tasks}: no accuracy that could fall; leave "
            "it out"
        )
    return found


def groups(scored: Sequence[Scored]) -> list[tuple[Samples, list[Scored]]]:
    """What is scored on the same samples, which are run once for all of it."""
    found: dict[int, tuple[Samples, list[Scored]]] = {}
    for each in scored:
        found.setdefault(id(each.samples), (each.samples, []))[1].append(each)
    return list(found.values())
