"""`evaluate`: task metrics of a session on the labelled samples of an .npz file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_runtime.errors import DatasetError, UsageError
from perceiver_runtime.evaluation.interface import Interface, cast, located
from perceiver_runtime.evaluation.tasks import TASKS, check_target, task_of
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format.arrays import StoredArray, archived
from perceiver_runtime.format.ranges import batch_within
from perceiver_runtime.progress import count
from perceiver_runtime.tensors import Array, TensorSpec


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one output over all samples of a file."""

    data: str
    output: str
    task: str
    samples: int
    metrics: Any


def evaluate(session: Session, data: str | Path, *, batch: int = 64) -> tuple[Evaluation, ...]:
    """Score a session on labelled samples, read as a stream.

    Args:
        session: An open session.
        data: An .npz file: arrays by input, and targets by output (`targets/NAME` where an input has that name),
            samples first.
        batch: Samples read at a time; the session runs the nearest number that the bundle takes.

    Returns:
        Metrics of each output that has targets.

    Raises:
        DatasetError: The file has no samples or no targets, or its arrays do not fit the model.
        FeedError: An input is out of range, or the file is damaged.
        CheckError: An output is NaN or infinite.
        UsageError: `batch` is less than 1, or `data` is a directory.
    """
    if batch < 1:
        raise UsageError(f"batch (--batch): expected at least 1, got {batch}")
    path, interface = Path(data), Interface.of(session.manifest)
    if path.is_dir():
        raise UsageError(
            f"{path}: expected one .npz file, got a directory; `perceiver-export evaluate` reads directories"
        )
    stored = archived(path)
    with located(str(path)):
        inputs, targets = interface.roles(stored)
        total = _samples(stored)
        tasks = {n: task_of(spec, stored[n].dtype, len(stored[n].shape) - 1) for n, spec in targets.items()}
        if not tasks:
            names = ", ".join(spec.name for spec in interface.outputs)
            raise DatasetError(f"expected targets by the name of an output ({names}), got none")
    metrics = {n: TASKS[task].metric(_labels(interface, targets[n], task)) for n, task in tasks.items()}
    outputs = tuple(spec.name for spec in targets.values())
    start = 0
    for rows in _pieces(stored, batch):
        count(f"evaluate {path}", start, total)
        read = len(next(iter(rows.values())))
        with located(f"{path}: samples {start} to {start + read - 1}"):
            feeds = {name: cast(spec, rows[name]) for name, spec in inputs.items()}
            made = answers(session, feeds, outputs, batch)
        for name, spec in targets.items():
            for row, target in enumerate(rows[name]):
                with located(f"{path}: sample {start + row}"):
                    check_target(spec, tasks[name], np.asarray(target))
            metrics[name].add(made[spec.name], rows[name])
        start += read
    return tuple(
        Evaluation(str(path), targets[name].name, task, total, metrics[name].result()) for name, task in tasks.items()
    )


def answers(session: Session, feeds: Mapping[str, Array], outputs: tuple[str, ...], batch: int) -> dict[str, Array]:
    """Outputs for all rows, in batches that the bundle takes; the last is filled up with repeated rows."""
    rows = len(next(iter(feeds.values())))
    profiles, fixed = session.manifest.profiles, _fixed_batch(session)
    made: list[Mapping[str, Array]] = []
    size = fixed or batch_within(profiles, batch)
    for start in range(0, rows, size):
        part = {name: array[start : start + size] for name, array in feeds.items()}
        left = min(size, rows - start)
        taken = np.arange(fixed or batch_within(profiles, left)) % left
        got = session.run({name: array[taken] for name, array in part.items()}, outputs)
        made.append({name: array[:left] for name, array in got.items()})
    return {name: np.concatenate([each[name] for each in made]) for name in outputs}


def _fixed_batch(session: Session) -> int:
    """The batch of a bundle that takes no other; 0 if it varies."""
    first = session.inputs[0].shape[:1]
    return first[0] if first and isinstance(first[0], int) else 0


def _samples(stored: Mapping[str, StoredArray]) -> int:
    sizes = {name: array.shape[0] if array.shape else 0 for name, array in stored.items()}
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DatasetError(f"expected as many samples in all arrays, got {got}")
    total = next(iter(sizes.values()), 0)
    if not total:
        raise DatasetError("expected at least one sample, got none")
    return total


def _labels(interface: Interface, spec: TensorSpec, task: str) -> tuple[str, ...]:
    return interface.classes(spec) if task == "classification" else ()


def _pieces(stored: Mapping[str, StoredArray], size: int) -> Iterator[dict[str, Array]]:
    for rows in zip(*(array.rows(size) for array in stored.values()), strict=True):
        yield dict(zip(stored, rows, strict=True))
