"""Samples that are drawn from a source: checked, encoded and put together in batches while they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from perceiver_deploy.data.source import Indices, Sample, Source
from perceiver_deploy.datasets.dataset import Batch
from perceiver_exporters.weights import update_sha256
from perceiver_runtime.errors import DatasetError
from perceiver_runtime.evaluation.interface import Interface, located
from perceiver_runtime.evaluation.tasks import check_target, task_of
from perceiver_runtime.manifest import SampleSet
from perceiver_runtime.processing.processor import Processor, processor_of
from perceiver_runtime.settings import Processing
from perceiver_runtime.tensors import Array

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Reader:
    """Reads samples of a source for a model.

    Attributes:
        source: The source.
        interface: What the model takes and gives.
        processing: How raw items become inputs, if that is known.
        scores: Whether targets are of the tasks that are known; else a function of the user's takes them as they are.
    """

    source: Source
    interface: Interface
    processing: Processing | None = None
    scores: bool = True

    @cached_property
    def processor(self) -> Processor:
        """Encodes raw items. Raises UsageError if the model's checkpoint states none."""
        made = processor_of(self.processing, self.interface.inputs)
        return replace(made, profiles=self.interface.profiles)

    def read(self, wanted: Indices) -> Iterator[Sample]:
        """The samples of these numbers, checked. Raises DatasetError that names the sample."""
        forms: dict[str, str] = {}
        number = -1
        for number, sample in zip(wanted.tolist(), self.source.read(self.interface, wanted), strict=False):
            with located(f"{self.source.name}: sample {number}"):
                checked = self._checked(sample, forms)
            yield checked
        if wanted.size and number != wanted[-1]:
            raise DatasetError(
                f"{self.source.name}: expected a sample {wanted[-1]}, got none after {number}; {CHANGED}"
            )

    def task(self, output: str, target: Array) -> str:
        """The task of an output. Raises DatasetError if none fits."""
        spec = next(spec for spec in self.interface.outputs if spec.name == output)
        return task_of(spec, target.dtype, target.ndim)

    def encode(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """A batch of inputs. Raises DatasetError for an item that can't be encoded."""
        if samples[0].item is None:
            return {name: np.stack([sample.inputs[name] for sample in samples]) for name in samples[0].inputs}
        items = [sample.item for sample in samples]
        if isinstance(items[0], str):  # texts are padded to the longest
            encoded = [self.processor.encode(items)]
        else:
            encoded = [self.processor.encode([item]) for item in items]
        extra = {name: np.stack([sample.inputs[name] for sample in samples]) for name in samples[0].inputs}
        made = {name: np.concatenate([each[name] for each in encoded]) for name in encoded[0]} | extra
        specs = {spec.name: spec for spec in self.interface.inputs}
        for name, array in made.items():
            for row in array:
                self.interface.check_sample(specs[name], row)
        return made

    def _checked(self, sample: Sample, forms: dict[str, str]) -> Sample:
        """The sample in the types of the model; `forms` are the tasks by output, all outputs that have targets."""
        specs = {spec.name: spec for spec in self.interface.inputs}
        outputs = {spec.name: spec for spec in self.interface.outputs}
        inputs = {name: self.interface.check_sample(specs[name], array) for name, array in sample.inputs.items()}
        targets = {name: np.asarray(value) for name, value in sample.targets.items()}
        found = {n: task_of(outputs[n], t.dtype, t.ndim) if self.scores else "" for n, t in targets.items()}
        if not forms:
            forms.update(found or {"": ""})
        if (found or {"": ""}) != forms:
            raise DatasetError(f"expected targets {_shown(forms)} as in the samples before, got {_shown(found)}")
        for name, target in targets.items() if self.scores else ():
            check_target(outputs[name], found[name], target)
        return Sample(inputs, _plain(sample.item), targets)


CHANGED = "the data must not change while they are read: fix the seed, and don't shuffle"


@dataclass(frozen=True)
class Drawn:
    """The samples of one use.

    Attributes:
        reader: Reads them.
        wanted: Their numbers in the source, ascending.
        sha256: Hash of their contents in this order.
        runs: Numbers of consecutive samples whose arrays have equal shapes.
    """

    reader: Reader
    wanted: Indices = field(repr=False)
    sha256: str
    runs: tuple[int, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.wanted)

    @property
    def record(self) -> SampleSet:
        """For the manifest."""
        return SampleSet(len(self), self.sha256)

    def batches(self, size: int) -> Iterator[Batch]:
        """Samples of equal shapes, at most `size` at a time.

        Raises DatasetError where the samples are not those that were surveyed.
        """
        digest = SampleHash()
        done = 0
        for group in _groups(digest.watch(self.reader.read(self.wanted)), size):
            first, last = self.wanted[done], self.wanted[done + len(group) - 1]
            where = f"sample {first}" if first == last else f"samples {first} to {last}"
            with located(f"{self.reader.source.name}: {where}"):
                feeds = self.reader.encode(group)
            yield Batch(feeds, {name: np.stack([s.targets[name] for s in group]) for name in group[0].targets})
            done += len(group)
        if digest.sha256 != self.sha256:
            raise DatasetError(
                f"{self.reader.source.name}: expected the same samples in every pass, got others; {CHANGED}"
            )

    def count(self, size: int) -> int:
        """Number of these batches."""
        return sum(-(-run // size) for run in self.runs)


class SampleHash:
    """SHA-256 of the contents of samples in order, and the shapes that follow one another."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._shapes: Shapes | None = None
        self.runs: list[int] = []

    @property
    def sha256(self) -> str:
        """Of all samples so far."""
        return self._digest.hexdigest()

    def add(self, sample: Sample) -> None:
        """One more sample."""
        for name, array in sorted(_contents(sample).items()):
            update_sha256(self._digest, name, array)
        if (shapes := _shapes(sample)) != self._shapes:
            self._shapes = shapes
            self.runs.append(0)
        self.runs[-1] += 1

    def watch(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The samples, which are added as they pass."""
        for sample in samples:
            self.add(sample)
            yield sample


def survey(reader: Reader, uses: Mapping[str, Indices]) -> tuple[dict[str, Drawn], dict[str, str]]:
    """Read the samples of all uses once, and check them.

    Args:
        reader: Reads them.
        uses: Numbers of the samples of each use.

    Returns:
        The samples of each use, and the tasks of the outputs that have targets.

    Raises:
        DatasetError: A sample does not fit the model.
        UsageError: Raw items, and the model's checkpoint does not state how they become inputs.
    """
    numbers = np.concatenate([*uses.values(), np.zeros(0, np.int64)])
    owners = np.concatenate([np.full(len(each), i) for i, each in enumerate(uses.values())] or [numbers])
    order = np.argsort(numbers)
    hashes = {name: SampleHash() for name in uses}
    names = tuple(uses)
    tasks: dict[str, str] = {}
    for owner, sample in zip(owners[order].tolist(), reader.read(numbers[order]), strict=True):
        if sample.item is not None:
            reader.processor  # noqa: B018 - refuses what it can't encode before anything is traced
        hashes[names[owner]].add(sample)
        for output, target in sample.targets.items():
            if output not in tasks:
                tasks[output] = reader.task(output, target) if reader.scores else ""
    made = {name: Drawn(reader, wanted, hashes[name].sha256, tuple(hashes[name].runs)) for name, wanted in uses.items()}
    return made, tasks


def _groups(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    for sample in samples:
        if group and (len(group) == size or _shapes(sample) != _shapes(group[0])):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def _shapes(sample: Sample) -> Shapes:
    arrays = {**sample.inputs, **{f"targets/{name}": target for name, target in sample.targets.items()}}
    return tuple((name, array.shape) for name, array in sorted(arrays.items()))


def _contents(sample: Sample) -> dict[str, Array]:
    arrays = {**sample.inputs, **{f"targets/{name}": target for name, target in sample.targets.items()}}
    parts = sample.item if isinstance(sample.item, tuple) else (sample.item,)
    for i, part in enumerate(parts if sample.item is not None else ()):
        encoded = np.frombuffer(part.encode("utf-8", "surrogatepass"), np.uint8) if isinstance(part, str) else part
        arrays[f"item/{i}"] = np.asarray(encoded)
    return arrays


def _shown(forms: Mapping[str, str]) -> str:
    return (
        ", ".join(f"of {name} ({task})" if task else f"of {name}" for name, task in forms.items() if name) or "of none"
    )


def _plain(item: object) -> object:
    """Raw items as text and arrays: images of Pillow, and pairs of them."""
    if item is None or isinstance(item, str | np.ndarray):
        return item
    if isinstance(item, list | tuple):
        return tuple(_plain(part) for part in item)
    if hasattr(item, "detach"):
        return item.detach().cpu().numpy()
    if hasattr(item, "convert"):
        return np.asarray(item.convert("RGB"))
    raise DatasetError(f"expected an image, a text or a pair of frames, got {type(item).__name__}")
