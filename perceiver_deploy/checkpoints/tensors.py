"""Read a checkpoint's tensors by name: safetensors, sharded or whole, or PyTorch files without executing pickles."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perceiver_runtime.errors import CheckpointError

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
)
"""Names looked for in a checkpoint directory, the preferred first."""


def find_weights(directory: Path) -> Path:
    """The weight file of a checkpoint directory. Raises CheckpointError naming what was looked for."""
    for name in WEIGHT_FILES:
        if (directory / name).is_file():
            return directory / name
    raise CheckpointError(f"{directory}: expected one of {', '.join(WEIGHT_FILES)}, found none of them")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weight file or shard index. Raises CheckpointError if it can't be read safely."""
    if path.name.endswith(".index.json"):
        return _sharded(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    return _pytorch(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a JSON file; {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected a safetensors file; {error}; copy or download it again") from error


def _pytorch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: expected tensors alone; this file holds Python objects, and reading them would run code that "
            "it brings; save the state dict as safetensors where the model comes from"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: expected a PyTorch file of tensors; {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path}: expected a state dict of tensors by name, got {type(content).__name__}")
    return dict(content)


def _sharded(index: Path) -> dict[str, Tensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index}: expected `weight_map` from tensor to shard file")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: expected shard files beside the index, got {shard!r}")
        tensors |= read_tensors(index.parent / shard)
    if absent := sorted(set(weight_map) - set(tensors)):
        raise CheckpointError(f"{index}: tensors promised by the index and in no shard: {', '.join(absent)}")
    return tensors
