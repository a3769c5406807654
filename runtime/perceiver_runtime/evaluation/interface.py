"""What a model takes and gives: the arrays of labelled samples are named and checked by it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perceiver_runtime.errors import DatasetError, FeedError
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.suggest import did_you_mean
from perceiver_runtime.tensors import Array, Profile, TensorSpec

TARGET = "targets/"
"""Before the name of an output, where an input has the same name."""


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a model; the first axis of each is the batch.

    Attributes:
        inputs: Its inputs.
        outputs: Its outputs.
        defaults: Inputs that samples need not have.
        labels: Names of the classes of its outputs that are as many.
        profiles: Sizes that it takes; none: any.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    defaults: Mapping[str, float] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> Interface:
        """The interface of a bundle."""
        pipeline = manifest.pipeline
        return cls(pipeline.inputs, pipeline.outputs, pipeline.defaults, manifest.labels, manifest.profiles)

    def roles(
        self, names: Iterable[str], *, complete: bool = True
    ) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
        """Inputs, and outputs that have targets, by the names of a sample's arrays.

        An array of an output's name holds its targets; `targets/NAME` does where an input has that name.

        Raises:
            DatasetError: A name is neither, or (where names are to be `complete`) an input is missing.
        """
        inputs = {spec.name: spec for spec in self.inputs}
        outputs = {spec.name: spec for spec in self.outputs}
        given, targets = {}, {}
        for name in names:
            output = name.removeprefix(TARGET)
            if name in inputs:
                given[name] = inputs[name]
            elif output in outputs:
                targets[name] = outputs[output]
            else:
                known = f"the inputs {', '.join(inputs)} and, for targets, the outputs {', '.join(outputs)}"
                hint = did_you_mean(name, (*inputs, *outputs))
                raise DatasetError(f"no input and no output {name!r:.80}; expected {known}{hint}")
        missing = [str(spec) for name, spec in inputs.items() if name not in given and name not in self.defaults]
        if missing and complete:
            raise DatasetError(f"input {' and '.join(missing)} is missing; got {', '.join(given) or 'no input'}")
        return given, targets

    def classes(self, output: TensorSpec) -> tuple[str, ...]:
        """Names of the classes of an output (batch, classes): its numbers where there are no other names."""
        count = output.shape[-1]
        if not isinstance(count, int):
            raise DatasetError(f"{output}: expected a fixed number of classes")
        return self.labels if len(self.labels) == count else tuple(map(str, range(count)))

    def check_sample(self, spec: TensorSpec, array: Array) -> Array:
        """One sample's array (without the batch axis) in the type of an input.

        Raises:
            DatasetError: Another type, rank or size than the model takes, or NaN or infinity.
        """
        array, one = cast(spec, array), TensorSpec(spec.name, spec.dtype, spec.shape[1:])
        if array.ndim != one.rank:
            raise DatasetError(f"{spec.name}: expected rank {one.rank} ({one}), got {array.dtype}{list(array.shape)}")
        for dimension, size in zip(one.shape, array.shape, strict=True):
            if isinstance(dimension, int):
                fits = size == dimension
            else:
                ranges = [p.dimensions[dimension] for p in self.profiles if dimension in p.dimensions]
                fits = size >= 1 and (dimension == BATCH or not ranges or any(size in each for each in ranges))
            if not fits:
                allowed = {s: str(p.dimensions[s]) for p in self.profiles for s in one.symbols if s in p.dimensions}
                sizes = f" with {', '.join(f'{s} of {r}' for s, r in allowed.items())}" if allowed else ""
                raise DatasetError(f"{spec.name}: expected {one}{sizes}, got {array.dtype}{list(array.shape)}")
        check_finite(spec.name, array)
        if spec.range is not None and array.dtype.kind in "iu" and not spec.range.holds(array):
            raise DatasetError(f"{spec.name}: expected {spec.range}, got {array.min()} to {array.max()}")
        return array


def cast(spec: TensorSpec, value: Any) -> Array:
    """An array in the type of a spec, if no value can change by that. Raises DatasetError."""
    given = isinstance(value, (np.ndarray, np.generic))
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DatasetError(f"{spec.name}: expected numbers of one shape: {error}") from error
    wanted = np.dtype(spec.dtype)
    numbers = array.dtype.kind in "biuf"
    if not numbers or not (np.can_cast(array.dtype, wanted, "safe") if given else same_kind(array.dtype, wanted)):
        raise DatasetError(f"{spec.name}: expected {wanted}, got {array.dtype}; cast it: .astype(np.{wanted})")
    return array.astype(wanted, copy=False)


def same_kind(dtype: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether Python's numbers of a list may become this type."""
    return dtype.kind == wanted.kind or (dtype.kind in "bi" and wanted.kind in "iuf")


def check_finite(name: str, array: Array) -> None:
    """Raise DatasetError for NaN and infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
        where = ", ".join(map(str, index))
        raise DatasetError(f"{name}: expected finite numbers, got {array[index]} at [{where}]")


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Say in the message of a DatasetError or FeedError where the data are that it is about."""
    try:
        yield
    except (DatasetError, FeedError) as error:
        raise DatasetError(f"{where}: {error}") from error
