"""Texts and labels from CSV files and JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from perceiver_deploy.data.source import FileSource, Indices, Record, Sample, class_number, first_of, pick
from perceiver_runtime.errors import DatasetError
from perceiver_runtime.evaluation.interface import Interface, located
from perceiver_runtime.format import strict_json
from perceiver_runtime.suggest import did_you_mean

TEXT, LABEL = "text", "label"


@dataclass(frozen=True)
class Table(FileSource):
    """A CSV file with a header, or lines of JSON objects: the column `text`, and `label` for what is to be scored."""

    def count(self, interface: Interface) -> int:
        """Number of rows."""
        return sum(1 for _ in self._rows())

    def read(self, interface: Interface, wanted: Indices) -> Iterator[Sample]:
        """Row by row."""
        return pick(self._samples(interface), wanted)

    def first(self) -> Record:
        """The text of the first row."""
        return first_of(self.path, ({TEXT: row[TEXT]} for _, row in self._rows()))

    def _samples(self, interface: Interface) -> Iterator[Sample]:
        main = interface.outputs[0]
        for line, row in self._rows():
            with located(f"{self.path}: line {line}"):
                if LABEL in row and not isinstance(row[LABEL], str | int | float):
                    raise DatasetError(f"{LABEL}: expected a name or a number, got {row[LABEL]!r:.80}")
                targets = {}
                if LABEL in row:
                    targets = {main.name: np.asarray(class_number(row[LABEL], main, interface, ()))}
                sample = Sample(item=row[TEXT], targets=targets)
            yield sample

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line numbers and rows."""
        rows = self._objects() if self.path.suffix.lower() != ".csv" else self._records()
        try:
            for line, row in rows:
                if not isinstance(row.get(TEXT), str):
                    columns = [str(name) for name in row]
                    raise DatasetError(
                        f"{self.path}: line {line}: expected the column {TEXT!r} (and {LABEL!r}), got "
                        f"{', '.join(columns)}{did_you_mean(TEXT, columns)}"
                    )
                yield line, {name: row[name] for name in (TEXT, LABEL) if row.get(name) is not None}
        except UnicodeDecodeError as error:
            raise DatasetError(f"{self.path}: expected UTF-8: {error}; save it as UTF-8") from error

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            try:
                for row in reader:
                    yield reader.line_num, row
            except csv.Error as error:
                raise DatasetError(f"{self.path}: line {reader.line_num}: expected CSV: {error}") from error

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = strict_json.loads(line)
                except ValueError as error:
                    raise DatasetError(f"{self.path}: line {number}: expected a JSON object: {error}") from error
                if not isinstance(row, dict):
                    raise DatasetError(f"{self.path}: line {number}: expected a JSON object, got {row!r:.80}")
                yield number, row
