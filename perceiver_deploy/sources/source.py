"""`resolve`: a model with its weights from what a user names. `blueprint`: that model cut, with inputs for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from perceiver_deploy import checkpoints
from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.loaded import DEFAULT, HUB_OPTIONS, MODULE_OPTIONS
from perceiver_deploy.datasets import DATASETS, Dataset
from perceiver_deploy.datasets.dataset import GOLDEN, FeedsOf, fixed_batch
from perceiver_deploy.families import FAMILIES, Family
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.origin import Origin, find
from perceiver_deploy.sources.own import load_own
from perceiver_exporters.component import Blueprint, Cut
from perceiver_exporters.cutting.call import Example
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime.errors import CheckpointError
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.format.schema import encode
from perceiver_runtime.manifest import Source
from perceiver_runtime.pipeline import Pipeline
from perceiver_runtime.settings import Processing
from perceiver_runtime.tensors import Array, TensorSpec

GOLDEN_BATCH = GOLDEN
GOLDEN_SEED = 0
LARGE_ROW = 1 << 20
"""Bytes of one row's inputs from which on golden rows are few, each a sample of its own."""
LARGE_GOLDEN_ROWS = 3
CALIBRATION_BATCH = 64


def resolve(
    source: str | Path | nn.Module | Blueprint,
    options: LoadOptions = DEFAULT,
    seed: int = 0,
    example: Example | None = None,
) -> Model:
    """The model of a source, in evaluation mode.

    Args:
        source: Name of a model of the zoo, a checkpoint directory, a hub id such as deepmind/language-perceiver, code
            that makes a module (`my_model.py:make`), or the module itself.
        options: How a checkpoint is read, and where hub ids are cached.
        seed: Of the random weights of a model that the zoo has no checkpoint for; `pretrained` is then false.
        example: Inputs of a module by name, where the options have none.

    Returns:
        The model, with its data set if it has one, and notes on what was assumed.

    Raises:
        UsageError: The source is none of these, or has no use for an option.
        CheckpointError: The checkpoint does not fit its config, or no format recognises it.
        UnavailableError: The hub id can't be fetched.
    """
    return load(find(source), options, seed, example)


def load(origin: Origin, options: LoadOptions = DEFAULT, seed: int = 0, example: Example | None = None) -> Model:
    """The model of an origin. Raises as `resolve` does."""
    if origin.users:
        return load_own(origin, options, example)
    options.refuse(MODULE_OPTIONS, f"goes with a module of your own (my_model.py:make), got {origin.name}")
    if (entry := origin.entry) is None:
        return _read(origin, origin.directory or origin.name, options)
    options.refuse(HUB_OPTIONS, f"goes with a hub id, got {entry.name}, a model of the zoo")
    if entry.checkpoint is not None:
        return _read(origin, entry.checkpoint, options)
    options.refuse(("image_size",), f"goes with a checkpoint, got {entry.name}, a model of the zoo, which has its size")
    torch.manual_seed(seed)
    module = entry.family.build(entry.config).eval()
    note = (
        f"{entry.name}: random weights: the zoo has no checkpoint for it; a checkpoint directory or a hub id has "
        "pretrained ones"
    )
    released = entry.family.processing(entry.config) if entry.family.processing is not None else None
    notes = (*origin.notes, note)
    return Model(entry.name, entry.family, entry.config, module, False, notes=notes, origin=origin, processing=released)


def _read(origin: Origin, place: Path | str, options: LoadOptions) -> Model:
    loaded = checkpoints.load(place, options)
    data = DATASETS[loaded.dataset]() if loaded.dataset else None
    family, notes = FAMILIES[loaded.family], (*origin.notes, *loaded.notes, *_refused(loaded.processing))
    if data is not None:
        _refuse_foreign(data, family.cut(loaded.module).pipeline, str(place))
    return Model(
        origin.name,
        family,
        loaded.config,
        loaded.module,
        True,
        dataset=data,
        labels=loaded.labels,
        notes=notes,
        origin=origin,
        processing=loaded.processing,
    )


def _refused(processing: Processing | None) -> tuple[str, ...]:
    """That a processing which is stated can't be applied, as a note: it is refused where it is used."""
    if processing is None or not (processing.refusal and processing.origin):
        return ()
    return (f"{processing.refusal}; the bundle takes arrays alone",)


def _refuse_foreign(data: Dataset, pipeline: Pipeline, place: str) -> None:
    """Raise CheckpointError for a data set whose inputs or outputs are not the model's."""
    specs = {spec.name: spec for spec in pipeline.inputs}
    outputs = {spec.name for spec in pipeline.outputs}
    for scored in data.scored:
        given = next(scored.samples.batches(1)).feeds
        fits = [name in specs and _fits(array, specs[name]) for name, array in given.items()]
        absent = set(specs) - set(given) - set(pipeline.defaults)
        if scored.output not in outputs or absent or not all(fits):
            raise CheckpointError(
                f"{place}: dataset: expected data for {', '.join(map(str, specs.values()))} and the outputs "
                f"{', '.join(sorted(outputs))}; {data.name} has {', '.join(given)} and {scored.output}"
            )


def _fits(array: Array, spec: TensorSpec) -> bool:
    sizes = zip(array.shape, spec.shape, strict=False)
    return array.ndim == len(spec.shape) and all(isinstance(n, str) or size == n for size, n in sizes)


def blueprint(model: Model) -> Blueprint:
    """Cut a model, with golden and calibration inputs: real ones from its data set, or random ones."""
    family, data = model.family, model.dataset
    if model.made is not None:
        return model.made if data is None else fed(model.made, data)
    cut = family.cut(model.module)
    source = Source(
        name=model.name,
        family=family.name,
        weights_sha256=weights_sha256(model.module),
        config=encode(model.config),
        pretrained=model.pretrained,
    )
    unknown = Processing(refusal=f"{model.name}: its source does not state how its inputs are made")
    made = Blueprint(source, cut, (), labels=model.labels, processing=model.processing or unknown)
    if data is not None:
        return fed(made, data)
    origin = f"{family.drawn} (seed {GOLDEN_SEED})"
    return replace(made, golden=random_golden(family, model.config), golden_origin=origin)


def fed(made: Blueprint, data: Dataset) -> Blueprint:
    """The blueprint with golden and calibration inputs from a data set, and its labels."""
    rows, fixed = 1 if _is_large(made.cut) else GOLDEN_BATCH, fixed_batch(made.cut.pipeline.inputs)
    return replace(
        made,
        golden=tuple(FeedsOf(data.golden, rows, fixed)),
        calibration=FeedsOf(data.calibration, CALIBRATION_BATCH, fixed),
        labels=data.labels or made.labels,
        golden_origin=data.origin,
        data=data.record,
    )


def random_golden(family: Family, config: Any) -> tuple[Mapping[str, Array], ...]:
    """Golden inputs of a model without data: a batch of rows, or fewer rows one by one where a row is large."""
    row = family.sample(config, 1, np.random.default_rng(GOLDEN_SEED))
    large = sum(array.nbytes for array in row.values()) > LARGE_ROW
    batches = [1] * LARGE_GOLDEN_ROWS if large else [GOLDEN_BATCH]
    random = np.random.default_rng(GOLDEN_SEED)
    return tuple(family.sample(config, batch, random) for batch in batches)


def _is_large(cut: Cut) -> bool:
    """Whether golden rows are samples of their own: see LARGE_ROW."""
    sizes = {name: sizes.opt for name, sizes in cut.profile.dimensions.items()} | {BATCH: 1}
    row = (np.dtype(s.dtype).itemsize * math.prod(s.resolve(sizes)) for s in cut.pipeline.inputs)
    return sum(row) > LARGE_ROW
