"""The project's own checkpoint: a directory of `config.json` and `model.safetensors`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from perceiver_deploy.checkpoints.fields import (
    MAX_HEADS,
    MAX_LAYERS,
    MAX_POINTS,
    MAX_SIDE,
    MAX_WIDTH,
    Kind,
    few_points,
    number,
    whole,
)
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_deploy.checkpoints.files.tensors import read_tensors
from perceiver_deploy.checkpoints.filling import filled
from perceiver_deploy.checkpoints.loaded import DEFAULT, LoadedCheckpoint, LoadOptions
from perceiver_deploy.checkpoints.renaming import Rule
from perceiver_deploy.datasets import DATASETS
from perceiver_deploy.families import FAMILIES
from perceiver_runtime.errors import BundleError, CheckpointError
from perceiver_runtime.format.schema import decode, encode
from perceiver_runtime.settings import Processing

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
SAME_NAME = (Rule("(?P<name>.+)", (r"\g<name>",)),)

RANGES: Mapping[str, Kind] = {
    **dict.fromkeys(("layers", "blocks"), whole(1, MAX_LAYERS)),
    **dict.fromkeys(("height", "width"), whole(1, MAX_SIDE)),
    **dict.fromkeys(("vocabulary", "max_length", "length", "samples", "sizes"), whole(1, MAX_POINTS)),
    **dict.fromkeys(("widening", "bands", "input_padding", "query_padding", "start", "stop"), whole(0, MAX_WIDTH)),
    "heads": whole(1, MAX_HEADS),
    "offset": number(-1e30, 1e30),
}
"""By the name of a config's field: the numbers it may hold, where these are not the positive ones up to a limit."""
COUNT, POSITIVE = whole(1, MAX_WIDTH), number(1e-30, 1e30)


@dataclass(frozen=True)
class CheckpointRecord:
    """`config.json`: the family's name and config, its data set (None: none), its provenance, and its processing."""

    family: str
    config: Any
    dataset: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    processing: Processing | None = None


def save_checkpoint(directory: Path, record: CheckpointRecord, module: nn.Module) -> None:
    """Write a checkpoint, each file whole or not at all; an earlier checkpoint there is replaced.

    A tensor that two layers share is stored under both names. The same weights give the same bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    weights, config = (directory / f".{name}.partial" for name in (WEIGHTS_NAME, CONFIG_NAME))
    weights.write_bytes(save(tensors))
    config.write_text(json.dumps(encode(record), indent=2) + "\n", encoding="utf-8")
    weights.replace(directory / WEIGHTS_NAME)
    config.replace(directory / CONFIG_NAME)


def read_config(directory: Path) -> CheckpointRecord:
    """Read `config.json` alone, without the weights. Raises CheckpointError."""
    path = directory / CONFIG_NAME
    content = read_json(path)
    try:
        record = decode(CheckpointRecord, content, str(path))
        if (family := FAMILIES.get(record.family)) is None:
            raise CheckpointError(f"{path}: expected a family of {', '.join(FAMILIES)}, got {record.family!r}")
        config = decode(family.config, record.config, f"{path}: config")
    except BundleError as error:  # what `decode` raises, whatever it decodes
        raise CheckpointError(str(error)) from error
    check_numbers(config, f"{path}: config")
    if record.dataset is not None and record.dataset not in DATASETS:
        raise CheckpointError(f"{path}: dataset: expected one of {', '.join(DATASETS)}, got {record.dataset!r:.80}")
    return dataclasses.replace(record, config=config)


def check_numbers(config: Any, where: str, name: str = "") -> None:
    """Refuse numbers that no model can have, anywhere in a config. Raises CheckpointError with the path."""
    if dataclasses.is_dataclass(config):
        few_points(where, "height x width", (getattr(config, side, 1) for side in ("height", "width")))
        for field_ in dataclasses.fields(config):
            check_numbers(getattr(config, field_.name), f"{where}.{field_.name}", field_.name)
    elif isinstance(config, tuple):
        for i, value in enumerate(config):
            check_numbers(value, f"{where}[{i}]", name)
    elif isinstance(config, (int, float)) and not isinstance(config, bool):
        kind = RANGES.get(name, POSITIVE if isinstance(config, float) else COUNT)
        if not kind.holds(config):
            raise CheckpointError(f"{where}: expected {kind.expected}, got {config!r:.80}")


def load_checkpoint(directory: Path) -> LoadedCheckpoint:
    """Read a checkpoint without running code from it. Raises CheckpointError if it is damaged or inconsistent."""
    record, where = read_config(directory), str(directory / CONFIG_NAME)
    weights = read_tensors(directory / WEIGHTS_NAME)
    module = filled(FAMILIES[record.family].build, record.config, weights, SAME_NAME, where)
    return LoadedCheckpoint(module, record.family, record.config, record.dataset, processing=record.processing)


def load(directory: Path, options: LoadOptions = DEFAULT) -> LoadedCheckpoint:
    """Read a checkpoint, whose config holds its sizes. Raises UsageError for an image size, and CheckpointError."""
    options.refuse(("image_size",), f"the config.json of {directory} holds the model's sizes")
    return load_checkpoint(directory)
