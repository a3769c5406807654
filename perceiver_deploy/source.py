"""From what the user names (a zoo model, a checkpoint or a hub id) to a module with weights and inputs for it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from perceiver_deploy import checkpoints
from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.hub import is_hub_id
from perceiver_deploy.checkpoints.loaded import DEFAULT
from perceiver_deploy.datasets import DATASETS, Dataset
from perceiver_deploy.families import FAMILIES, Family
from perceiver_deploy.zoo import zoo
from perceiver_exporters.component import Blueprint
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime.errors import UsageError
from perceiver_runtime.manifest import Source
from perceiver_runtime.schema import encode
from perceiver_runtime.tensors import Array

GOLDEN_BATCH = 8
GOLDEN_SEED = 0
LARGE_ROW = 1 << 20
"""Bytes of one row's inputs from which golden rows are few, each a sample of its own: its values are larger still."""
LARGE_GOLDEN_ROWS = 3
CALIBRATION_BATCH = 64


@dataclass(frozen=True)
class Model:
    """A reference model in evaluation mode.

    `dataset` is its real data, if the project ships any; `labels` are its class names, if the checkpoint gives them.
    """

    name: str
    family: Family
    config: Any
    module: nn.Module
    pretrained: bool
    dataset: Dataset | None = None
    labels: tuple[str, ...] = ()


def resolve(source: str, options: LoadOptions = DEFAULT, seed: int = 0) -> Model:
    """Find a zoo model by name, read a checkpoint directory, or fetch a hub id such as deepmind/language-perceiver.

    A zoo entry without weights gets random ones from `seed`; `pretrained` then is false and every output says
    so. Raises UsageError for an unknown name and for options that the source has no use for, CheckpointError for a
    checkpoint that does not fit, UnavailableError for a hub id that can't be fetched.
    """
    if _on_hub(source):
        return replace(_load(source, options), name=source)
    if options != DEFAULT:
        raise UsageError(f"revision, cache_dir and local_files_only go with a hub id, got {source!r}; leave them out")
    if (entry := zoo().get(source)) is not None:
        if entry.checkpoint is not None:
            return replace(_load(str(entry.checkpoint)), name=entry.name)
        torch.manual_seed(seed)
        return Model(entry.name, entry.family, entry.config, entry.family.build(entry.config).eval(), False)
    if Path(source).is_dir():
        return _load(source)
    close = difflib.get_close_matches(source, zoo(), n=1)
    hint = f"did you mean {close[0]}?" if close else "`perceiver-export models` lists the names"
    raise UsageError(f"source: expected a model of the zoo, a checkpoint directory or a hub id, got {source!r}; {hint}")


def _on_hub(source: str) -> bool:
    return source not in zoo() and not Path(source).is_dir() and is_hub_id(source)


def reference_of(source: Source, name: str | None = None) -> Model:
    """The model that a bundle of this source was made from, found by `name` (None: the source's own).

    A hub id is looked for in the local cache alone. Raises UsageError if it has other weights than the bundle, and
    what `resolve` raises.
    """
    wanted = name or source.name
    model = resolve(wanted, replace(DEFAULT, local_files_only=_on_hub(wanted)))
    if (got := weights_sha256(model.module)) != source.weights_sha256:
        raise UsageError(
            f"reference: expected the weights of the bundle ({source.name}, {source.weights_sha256[:12]}), "
            f"got {model.name} with {got[:12]}; name the right checkpoint with --reference"
        )
    return model


def blueprint(model: Model) -> Blueprint:
    """Cut a model and give it inputs: real ones from its dataset, or random ones of the right shapes."""
    family, data = model.family, model.dataset
    if data is None:
        golden = random_golden(family, model.config)
        calibration: tuple[Mapping[str, Array], ...] = ()
        origin = f"random values (seed {GOLDEN_SEED})"
    else:
        golden = ({name: array[:GOLDEN_BATCH] for name, array in data.held_out.items()},)
        calibration = tuple(batches(data.calibration, CALIBRATION_BATCH))
        origin = f"{data.name} (held-out split, first {GOLDEN_BATCH} samples)"
    source = Source(
        name=model.name,
        family=family.name,
        weights_sha256=weights_sha256(model.module),
        config=encode(model.config),
        pretrained=model.pretrained,
    )
    labels = data.labels if data else model.labels
    return Blueprint(source, family.cut(model.module), golden, calibration, labels, origin)


def random_golden(family: Family, config: Any) -> tuple[Mapping[str, Array], ...]:
    """Golden inputs of a model without data: a batch of rows, or fewer rows one by one where a row is large."""
    row = family.sample(config, 1, np.random.default_rng(GOLDEN_SEED))
    large = sum(array.nbytes for array in row.values()) > LARGE_ROW
    batches = [1] * LARGE_GOLDEN_ROWS if large else [GOLDEN_BATCH]
    random = np.random.default_rng(GOLDEN_SEED)
    return tuple(family.sample(config, batch, random) for batch in batches)


def batches(feeds: Mapping[str, Array], size: int) -> list[Mapping[str, Array]]:
    """Split arrays that share their first axis into feeds of at most `size` rows."""
    rows = len(next(iter(feeds.values())))
    return [{name: array[i : i + size] for name, array in feeds.items()} for i in range(0, rows, size)]


def _load(source: str, options: LoadOptions = DEFAULT) -> Model:
    loaded = checkpoints.load(source, options)
    data = DATASETS[loaded.dataset]() if loaded.dataset else None
    family = FAMILIES[loaded.family]
    return Model(Path(source).name, family, loaded.config, loaded.module.eval(), True, data, loaded.labels)
