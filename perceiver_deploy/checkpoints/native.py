"""The project's own checkpoint: a directory of `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from perceiver_deploy.checkpoints.loaded import LoadedCheckpoint
from perceiver_deploy.checkpoints.renaming import Rule, transfer
from perceiver_deploy.checkpoints.tensors import read_json, read_tensors
from perceiver_deploy.families import FAMILIES
from perceiver_runtime.errors import BundleError, CheckpointError
from perceiver_runtime.schema import decode, encode

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
SAME_NAME = (Rule("(?P<name>.+)", (r"\g<name>",)),)


@dataclass(frozen=True)
class CheckpointRecord:
    """`config.json`: the family's name and config, the name of its data set (None: no data), where it came from."""

    family: str
    config: Any
    dataset: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


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
    return CheckpointRecord(record.family, config, record.dataset, record.provenance)


def load_checkpoint(directory: Path) -> LoadedCheckpoint:
    """Read a checkpoint; no code in it is ever run. Raises CheckpointError if it is damaged or its parts do not fit."""
    record = read_config(directory)
    tensors = read_tensors(directory / WEIGHTS_NAME)
    try:
        module = FAMILIES[record.family].build(record.config)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(f"{directory / CONFIG_NAME}: no model can be built of these sizes; {error}") from error
    transfer(tensors, SAME_NAME, module, str(directory / WEIGHTS_NAME))
    return LoadedCheckpoint(module.eval(), record.family, record.config, record.dataset)
