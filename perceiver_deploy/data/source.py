"""What all sources of samples have in common, and how a sample is read from a record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import DatasetError
from perceiver_runtime.evaluation.interface import Interface, cast, located
from perceiver_runtime.suggest import did_you_mean
from perceiver_runtime.tensors import Array, TensorSpec

Indices = npt.NDArray[np.int64]
Record = Mapping[str, Any]
"""What a source gives: arrays by input, targets by output; or an item for the model's processor, and a label."""

ITEMS = ("image", "text", "frames")
"""Names of raw items, which the model's processor encodes: an image, a text, a pair of frames."""
LABELS = ("label", "labels")
"""Names of the target of the model's main output."""


@dataclass(frozen=True)
class Sample:
    """One sample: arrays by input without the batch axis, or a raw item; and targets by output."""

    inputs: Mapping[str, Array] = field(default_factory=dict)
    item: Any = None
    targets: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Labelled samples, the same ones in the same order whenever they are read."""

    @property
    def name(self) -> str:
        """Its name in reports and in the manifest."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in order, where the source names them."""

    @property
    def code_sha256(self) -> str:
        """Hash of the user's code that makes the samples; empty for files."""

    def count(self, interface: Interface) -> int:
        """Number of samples."""

    def read(self, interface: Interface, wanted: Indices) -> Iterator[Sample]:
        """The samples of these numbers, in ascending order."""

    def first(self) -> Record:
        """The first record, before it is known what the model takes."""


@dataclass(frozen=True)
class FileSource:
    """What sources of files have in common: the place, and the name, which is that of the file or directory."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the file or directory."""
        return (self.path.resolve() if self.path.is_dir() else self.path).name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in order; none by default."""
        return ()

    @property
    def code_sha256(self) -> str:
        """Empty: files are no code."""
        return ""


def first_of(path: Path, records: Iterator[Record]) -> Record:
    """The first record of a file or directory. Raises DatasetError if there is none."""
    record = next(records, None)
    if record is None:
        raise DatasetError(f"{path}: expected at least one sample, got none")
    return record


def samples_of(record: Any, interface: Interface) -> list[Sample]:
    """The samples of a record: one, or as many as its arrays have rows beyond the rank of a sample.

    Raises:
        DatasetError: A name is neither an input nor an output, or an array does not fit.
    """
    if not isinstance(record, Mapping):
        raise DatasetError(
            f"expected a dict of arrays by name, got {type(record).__name__}; name the model's inputs "
            f"({', '.join(spec.name for spec in interface.inputs)}) and, for targets, its outputs"
        )
    names = {spec.name for spec in (*interface.inputs, *interface.outputs)}
    item = next((name for name in ITEMS if name in record and name not in names), None)
    label = next((name for name in LABELS if name in record and name not in names), None)
    rest = {str(name): value for name, value in record.items() if name not in (item, label)}
    inputs, targets = interface.roles(rest, complete=item is None)
    arrays = {name: cast(spec, _plain(rest[name])) for name, spec in inputs.items()}
    many = _rows(arrays, inputs, record[item] if item else None)
    scored = {spec.name: _plain(rest[name]) for name, spec in targets.items()}
    if label is not None:
        scored[interface.outputs[0].name] = _plain(record[label])
    if many is None:
        return [Sample(arrays, record[item] if item else None, scored)]
    _require_rows(many, {**arrays, **scored})
    return [
        Sample(
            {name: array[i] for name, array in arrays.items()},
            record[item][i] if item else None,
            {name: values[i] for name, values in scored.items()},
        )
        for i in range(many)
    ]


def pick(samples: Iterable[Sample], wanted: Indices) -> Iterator[Sample]:
    """Of all samples those of these numbers, which ascend; no more are read than to the last of them."""
    numbers = iter(wanted.tolist())
    following = next(numbers, None)
    for number, sample in enumerate(samples):
        if following is None:
            return
        if number == following:
            yield sample
            following = next(numbers, None)


def read_records(records: Iterable[Any], interface: Interface, what: str = "record") -> Iterator[Sample]:
    """The samples of all records. Raises DatasetError that names the record."""
    for number, record in enumerate(records):
        with located(f"{what} {number}"):
            samples = samples_of(record, interface)
        yield from samples


def class_number(label: Any, spec: TensorSpec, interface: Interface, classes: Sequence[str]) -> Any:
    """The number of a class that is named by a text; anything else as it is. Raises DatasetError."""
    if not isinstance(label, str):
        return label
    names = interface.classes(spec)
    if label in interface.labels and names == interface.labels:
        return names.index(label)
    if label.isascii() and label.isdigit():
        return int(label)
    if names != interface.labels and label in classes:
        if len(classes) != len(names):
            raise DatasetError(
                f"expected as many classes as the model has ({len(names)}), got {len(classes)}; name classes by their "
                "numbers, or set id2label in the checkpoint's config.json"
            )
        return classes.index(label)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    raise DatasetError(
        f"label {label!r:.80}: expected a class of {shown}, or its number{did_you_mean(label, names)}; names of the "
        "model's classes are set by id2label in the checkpoint's config.json"
    )


def _plain(value: Any) -> Any:
    """Tensors as arrays; anything else as it is."""
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return value


def _rows(arrays: Mapping[str, Array], specs: Mapping[str, TensorSpec], item: Any) -> int | None:
    """Samples of a record whose arrays have a batch axis; None for a record of one sample without that axis."""
    if not arrays:
        batched = isinstance(item, list) or (isinstance(item, np.ndarray) and item.ndim == 4)
        return len(item) if batched else None
    ranks = {name: array.ndim - specs[name].rank for name, array in arrays.items()}
    if set(ranks.values()) == {0}:
        return len(next(iter(arrays.values())))
    if set(ranks.values()) == {-1}:
        return None
    wrong = next(name for name, rank in ranks.items() if rank not in (0, -1) or len(set(ranks.values())) > 1)
    got = arrays[wrong]
    raise DatasetError(
        f"{wrong}: expected rank {specs[wrong].rank} ({specs[wrong]}), or one less for a single sample, got "
        f"{got.dtype}{list(got.shape)}"
    )


def _require_rows(rows: int, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        got = len(value) if hasattr(value, "__len__") and not (isinstance(value, np.ndarray) and not value.ndim) else 0
        if got != rows:
            raise DatasetError(f"{name}: expected {rows} rows as elsewhere, got {got}")
