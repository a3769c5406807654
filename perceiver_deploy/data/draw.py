"""The draw: which samples of a source are for calibration, which for golden samples, which for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from perceiver_deploy.data.drawn import Drawn, Reader, survey
from perceiver_deploy.data.source import Indices, Source
from perceiver_deploy.datasets.dataset import CUSTOM, GOLDEN, ArraySamples, Dataset, Scored
from perceiver_deploy.sources.code import load_function
from perceiver_deploy.sources.model import Model
from perceiver_runtime.errors import DatasetError, UsageError
from perceiver_runtime.evaluation.interface import Interface
from perceiver_runtime.manifest import DataRecord

USES = ("golden", "calibration", "evaluation")
TYPICAL = {"golden": GOLDEN, "calibration": 512, "evaluation": 2000}
"""Samples of each use, where nothing else is asked for and the source has as many."""


@dataclass(frozen=True)
class DataOptions:
    """Data of the user's, and how it is divided.

    Attributes:
        data: A path, `file.py:function`, an iterable of dicts, or a function that returns one.
        calibration: Number of samples for the ranges of int8; None: 512, or as many as there are.
        golden: Number of samples that are stored in the bundle; None: 8, or as many as there are.
        evaluation: Number of samples that metrics are measured on; None: 2,000, or as many as there are.
        seed: Of the draw.
        metric: `file.py:function` or a function that scores outputs by name against targets by name.
    """

    data: object = None
    calibration: int | None = None
    golden: int | None = None
    evaluation: int | None = None
    seed: int = 0
    metric: object = None

    def __post_init__(self) -> None:
        """Raise UsageError for a number below its least, or for options of data where there is none."""
        for name, least in (("calibration", 0), ("golden", 1), ("evaluation", 0)):
            number = getattr(self, name)
            if number is not None and not (isinstance(number, int) and number >= least):
                option = f"{name}_samples (--{name}-samples)"
                raise UsageError(f"{option}: expected an integer of at least {least}, got {number!r:.40}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise UsageError(f"seed (--seed): expected an integer of at least 0, got {self.seed!r:.40}")

    @property
    def without_data(self) -> tuple[str, ...]:
        """Options that are given though there are no data."""
        names = {use: f"{use}_samples (--{use}-samples)" for use in USES} | {"seed": "seed (--seed)"}
        given = [f.name for f in fields(self) if f.name in names and getattr(self, f.name) != f.default]
        return tuple(names[name] for name in given) if self.data is None else ()


def interface_of(model: Model) -> Interface:
    """What a model takes and gives."""
    cut = model.family.cut(model.module) if model.made is None else model.made.cut
    pipeline = cut.pipeline
    return Interface(pipeline.inputs, pipeline.outputs, pipeline.defaults, model.labels, (cut.profile,))


def dataset_of(model: Model, source: Source, options: DataOptions) -> Dataset:
    """Draw samples for a model from data of the user's.

    Raises:
        UsageError: Raw items, and the model's checkpoint does not state how they become inputs.
        DatasetError: There are fewer samples than asked for, or they do not fit the model.
    """
    reader = reader_of(model, source, options.metric)
    total = counted(reader)
    numbers = allot(source.name, total, options)
    uses = draw(total, numbers, options.seed)
    found, tasks = survey(reader, uses)
    record = DataRecord(
        source.name, total, options.seed, code_sha256=source.code_sha256, **{name: found[name].record for name in USES}
    )
    return made_dataset(reader, found, tasks, options.metric, record)


def reader_of(model: Model, source: Source, metric: object = None) -> Reader:
    """A reader of a source for a model; classes that the source names are the model's where it has no names."""
    interface = interface_of(model)
    return Reader(source, interface, model.processing, scores=metric is None)


def counted(reader: Reader) -> int:
    """Number of samples. Raises DatasetError if there is none."""
    total = reader.source.count(reader.interface)
    if not total:
        raise DatasetError(f"{reader.source.name}: expected at least one sample, got none")
    return total


def allot(name: str, total: int, options: DataOptions) -> dict[str, int]:
    """Number of samples of each use. Raises DatasetError for fewer samples than asked for."""
    asked = {use: number for use in USES if (number := getattr(options, use)) is not None}
    if sum(asked.values()) > total:
        wanted = ", ".join(f"{number} for {use}" for use, number in asked.items())
        raise DatasetError(f"{name}: expected at least {sum(asked.values())} samples ({wanted}), got {total}")
    left = total - sum(asked.values())
    for use in USES:
        if use not in asked:
            share = {"golden": max(left // 8, 1), "calibration": (left + 1) // 2, "evaluation": left}[use]
            asked[use] = min(TYPICAL[use], share, left)
            left -= asked[use]
    return asked


def draw(total: int, numbers: Mapping[str, int], seed: int) -> dict[str, Indices]:
    """Numbers of the samples of each use, ascending; no sample has two uses."""
    order = np.random.default_rng(seed).permutation(total)
    ends = np.cumsum([numbers[use] for use in USES])
    parts = np.split(order[: ends[-1]], ends[:-1])
    return {use: np.sort(part) for use, part in zip(USES, parts, strict=True)}


def made_dataset(
    reader: Reader, found: Mapping[str, Drawn], tasks: Mapping[str, str], metric: object, record: DataRecord | None
) -> Dataset:
    """The data set of drawn samples; uses that were not drawn are empty."""
    source, interface = reader.source, reader.interface
    none = ArraySamples({})
    samples = found.get("evaluation")
    labels = interface.labels or (source.classes if len(source.classes) in _sizes(interface) else ())
    scored: tuple[Scored, ...] = ()
    if samples is not None and len(samples):
        if metric is not None:
            function = load_metric(metric)
            names = ", ".join(tasks) or ", ".join(spec.name for spec in interface.outputs)
            scored = (Scored(names, CUSTOM, samples, metric=function),)
        else:
            ordered = [spec for spec in interface.outputs if spec.name in tasks]
            scored = tuple(
                Scored(s.name, tasks[s.name], samples, _classes(interface, s, labels, tasks[s.name])) for s in ordered
            )
    golden = found.get("golden")
    seed = 0 if record is None else record.seed
    origin = f"{source.name} ({len(golden)} samples, drawn with seed {seed})" if golden is not None else ""
    return Dataset(source.name, labels, found.get("calibration", none), golden or none, scored, origin, record)


def load_metric(metric: object) -> Callable[..., Any]:
    """The function that a user named. Raises UsageError if it is none."""
    if isinstance(metric, str):
        return load_function(metric).call
    if callable(metric):
        return metric
    raise UsageError(f"metric (--metric): expected file.py:function or a function, got {metric!r:.80}")


def _classes(interface: Interface, spec: Any, labels: tuple[str, ...], task: str) -> tuple[str, ...]:
    if task != "classification":
        return ()
    return labels if len(labels) == spec.shape[-1] else interface.classes(spec)


def _sizes(interface: Interface) -> set[int | str]:
    """Sizes of the last axes of the outputs: possible numbers of classes."""
    return {spec.shape[-1] for spec in interface.outputs if spec.rank == 2}
