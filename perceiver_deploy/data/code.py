"""Samples from Python: a function of the user's, or an iterable such as a DataLoader or a datasets.Dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perceiver_deploy.data.source import Indices, Record, Sample, pick, read_records
from perceiver_deploy.sources.code import UserFunction, raised
from perceiver_runtime.errors import DatasetError, PerceiverError, UsageError
from perceiver_runtime.evaluation.interface import Interface, located


@dataclass(frozen=True)
class Records:
    """Dicts of one sample or of a batch, made anew in each pass.

    Attributes:
        name: How the user named them.
        start: Makes an iterable of them.
        file: The user's file, whose lines messages name.
        code_sha256: Its hash.
    """

    name: str
    start: Callable[[], Iterable[Any]] = field(repr=False)
    file: Path | None = None
    code_sha256: str = ""
    classes: tuple[str, ...] = ()

    def count(self, interface: Interface) -> int:
        """Counts the samples in a pass of its own."""
        return sum(1 for _ in self._samples(interface))

    def read(self, interface: Interface, wanted: Indices) -> Iterator[Sample]:
        """Record by record."""
        return pick(self._samples(interface), wanted)

    def first(self) -> Record:
        """The first record. Raises DatasetError if there is none."""
        with located(self.name):
            record = next(self._records(), None)
        if record is None:
            raise DatasetError(f"{self.name}: expected at least one sample, got none")
        if not isinstance(record, Mapping):
            raise DatasetError(f"{self.name}: expected dicts of arrays by name, got {type(record).__name__}")
        return record

    def _samples(self, interface: Interface) -> Iterator[Sample]:
        with located(self.name):
            yield from read_records(self._records(), interface)

    def _records(self) -> Iterator[Any]:
        """Whatever the user's code raises becomes a DatasetError that names its line."""
        try:
            yield from self.start()
        except (PerceiverError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise DatasetError(raised(error, self.file)) from error


def records_of(function: UserFunction) -> Records:
    """The records that a function of the user's returns or yields. Raises UsageError if it returns none."""
    name = f"{function.file.name}:{function.function.__name__}"
    return _records(function.call, name, function.file, function.sha256)


def records_in(data: object) -> Records:
    """The records of an iterable, or of a function without arguments that returns one.

    Raises:
        UsageError: It is neither, or can be read only once.
    """
    if callable(data) and not isinstance(data, Iterable):
        return _records(data, getattr(data, "__name__", type(data).__name__), None, "")
    name = type(data).__name__
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Mapping):
        raise UsageError(
            "data (--data): expected a path, file.py:function, an iterable of dicts or a function that returns one, "
            f"got {name}"
        )
    if iter(data) is data:
        raise UsageError(
            f"data: expected what can be read more than once, got a {name}; give the function that makes it"
        )
    return Records(name, lambda: data)


def _records(function: Callable[..., Any], name: str, file: Path | None, sha256: str) -> Records:
    made = function()
    if not isinstance(made, Iterable) or isinstance(made, str | bytes | Mapping):
        raise UsageError(f"{name}: expected an iterable of dicts of arrays by name, got {type(made).__name__}")
    once = iter(made) is made
    return Records(name, (lambda: function()) if once else (lambda: made), file, sha256)
