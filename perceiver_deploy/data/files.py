"""Arrays from .npz files: one file, or a directory of them, each with one sample or several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perceiver_deploy.data.source import FileSource, Indices, Record, Sample, first_of, pick, read_records, samples_of
from perceiver_runtime.errors import DatasetError
from perceiver_runtime.evaluation.interface import Interface, located
from perceiver_runtime.format.arrays import archived

PIECE = 64
"""Samples of a file that are read at a time."""


@dataclass(frozen=True)
class Archive(FileSource):
    """An .npz file: arrays by input and by output, samples first."""

    def count(self, interface: Interface) -> int:
        """The length of all its arrays. Raises DatasetError if they have several."""
        stored = archived(self.path)
        lengths = {name: array.shape[0] if array.shape else 0 for name, array in stored.items()}
        if len(set(lengths.values())) > 1:
            got = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DatasetError(f"{self.path}: expected as many samples in all arrays, got {got}")
        return next(iter(lengths.values()), 0)

    def read(self, interface: Interface, wanted: Indices) -> Iterator[Sample]:
        """The arrays are read in pieces; those without a wanted sample are not made into samples."""
        start = 0
        for piece in self._pieces(PIECE):
            rows = len(next(iter(piece.values())))
            first, last = np.searchsorted(wanted, (start, start + rows))
            if first < last:
                chosen = wanted[first:last] - start
                with located(f"{self.path}: samples {start} to {start + rows - 1}"):
                    yield from samples_of({name: array[chosen] for name, array in piece.items()}, interface)
            start += rows
            if last == len(wanted):
                return

    def first(self) -> Record:
        """Its first two rows: a batch of one would be traced as a constant."""
        rows = first_of(self.path, self._pieces(2))
        return {name: array.copy() for name, array in rows.items()}

    def _pieces(self, size: int) -> Iterator[Record]:
        stored = archived(self.path)
        for rows in zip(*(array.rows(size) for array in stored.values()), strict=False):
            yield dict(zip(stored, rows, strict=True))


@dataclass(frozen=True)
class Archives(FileSource):
    """A directory of .npz files, in the order of their names."""

    def count(self, interface: Interface) -> int:
        """The samples of all files."""
        return sum(1 for _ in self._samples(interface))

    def read(self, interface: Interface, wanted: Indices) -> Iterator[Sample]:
        """File by file."""
        return pick(self._samples(interface), wanted)

    def first(self) -> Record:
        """The arrays of the first file."""
        return first_of(self.path, self._records())

    def _samples(self, interface: Interface) -> Iterator[Sample]:
        with located(str(self.path)):
            yield from read_records(self._records(), interface, "file")

    def _records(self) -> Iterator[Record]:
        for file in sorted(self.path.glob("*.npz")):
            yield {name: array.load() for name, array in archived(file).items()}
