"""A labelled data set as the model takes it: for calibration, for golden samples and for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from perceiver_runtime.manifest import DataRecord
from perceiver_runtime.tensors import Array, TensorSpec

CUSTOM = "custom"
"""The task of a function of the user's (`--metric`)."""


@dataclass(frozen=True)
class Batch:
    """Samples that have arrays of the same shapes: inputs by name, and targets by output, samples first."""

    feeds: Mapping[str, Array]
    targets: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.targets.values() or self.feeds.values())))


class Samples(Protocol):
    """Samples, as many as its length says and the same ones in every pass."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, at most `size` at a time."""

    def count(self, size: int) -> int:
        """Number of these batches."""


@dataclass(frozen=True)
class ArraySamples:
    """Samples in memory: inputs by name and targets by output, samples first."""

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values()), ()))

    def batches(self, size: int) -> Iterator[Batch]:
        """Slices of the arrays."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield Batch(*({name: array[rows] for name, array in each.items()} for each in (self.inputs, self.targets)))

    def count(self, size: int) -> int:
        """Number of the slices."""
        return -(-len(self) // size)


@dataclass(frozen=True)
class FeedsOf:
    """The inputs of samples as a stream of feeds: `size` samples each, or exactly `fixed` where that is not 0."""

    samples: Samples
    size: int
    fixed: int = 0

    def __len__(self) -> int:
        return self.samples.count(self.fixed or self.size)

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        return (filled(batch.feeds, self.fixed) for batch in self.samples.batches(self.fixed or self.size))


def filled(feeds: Mapping[str, Array], fixed: int) -> Mapping[str, Array]:
    """The feeds with repeated rows, as many as a model takes whose batch is `fixed`; 0: as they are."""
    rows = len(next(iter(feeds.values())))
    if rows >= fixed:
        return feeds
    taken = np.arange(fixed) % rows
    return {name: array[taken] for name, array in feeds.items()}


def fixed_batch(inputs: Sequence[TensorSpec]) -> int:
    """The only batch that a model takes; 0 if it takes several."""
    first = inputs[0].shape[:1]
    return first[0] if first and isinstance(first[0], int) else 0


@dataclass(frozen=True)
class Scored:
    """What is scored, over which samples.

    Attributes:
        output: The output, whose targets the samples have.
        task: A name of `perceiver_runtime.evaluation.tasks.TASKS`, or CUSTOM.
        samples: The samples.
        labels: Names of the classes in order.
        metric: The function of a CUSTOM task, which gets all outputs and targets of a batch.
    """

    output: str
    task: str
    samples: Samples
    labels: tuple[str, ...] = ()
    metric: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Dataset:
    """Samples for three uses.

    Attributes:
        name: Name of the data set.
        labels: Names of the classes in order.
        calibration: Samples whose activations give the ranges of int8.
        golden: Samples that are stored in the bundle.
        scored: What is evaluated, the main output first, on samples that are not among those of the calibration.
        origin: What the golden samples are, in words.
        record: The source, the draw and its hashes, for the manifest; None for data that come with the package.
        held_out: Whether the scored samples are known to have had no part in the export.
    """

    name: str
    labels: tuple[str, ...]
    calibration: Samples
    golden: Samples
    scored: tuple[Scored, ...]
    origin: str = ""
    record: DataRecord | None = None
    held_out: bool = True


def shipped(
    name: str,
    labels: tuple[str, ...],
    calibration: Mapping[str, Array],
    held_out: Mapping[str, Array],
    targets: Array,
    output: str = "logits",
    more: tuple[Scored, ...] = (),
) -> Dataset:
    """A data set of the package, whose splits are fixed.

    Args:
        name: Name of the data set.
        labels: Names of the classes in order.
        calibration: Inputs from the training split.
        held_out: Inputs from the test split.
        targets: Class numbers (N,) of `held_out`.
        output: The model's main output.
        more: Other outputs, with held-out samples of their own.

    Returns:
        The data set; its golden samples are the first of the held-out ones.
    """
    samples = ArraySamples(held_out, {output: targets})
    main = Scored(output, "classification", samples, labels)
    first = ArraySamples({name: array[:GOLDEN] for name, array in held_out.items()})
    origin = f"{name} (held-out split, first {GOLDEN} samples)"
    return Dataset(name, labels, ArraySamples(calibration), first, (main, *more), origin)


GOLDEN = 8
"""Golden samples, where nothing else is asked for."""
