"""Read a checkpoint's tensors by name: safetensors, sharded or whole, or PyTorch files without executing pickles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perceiver_deploy.checkpoints.files.contents import AGAIN, check_readable, identify
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_deploy.checkpoints.files.pickled import load_pickled, state_dict
from perceiver_runtime.errors import CheckpointError

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
)
"""Names looked for in a checkpoint directory, the preferred first."""

WEIGHT_SUFFIXES = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".npz", ".onnx", ".gguf", ".h5", ".keras", ".msgpack"),
    ".index.json",
)
"""How files of weights are named, readable ones and others."""

MAX_NAME = 255
"""Bytes of a file's name."""

PREFIXES = ("module.", "_orig_mod.", "model.", "backend_model.")
"""What DistributedDataParallel, torch.compile, PyTorch Lightning and perceiver-io's wrappers put before every name."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the file of each; `origin` is the weight file, or the index of shards."""

    origin: Path
    tensors: dict[str, Tensor]
    files: dict[str, Path]

    def named(self, names: dict[str, str]) -> Weights:
        """Those tensors that `names` has as keys, under the names that are its values."""
        return replace(
            self,
            tensors={new: self.tensors[old] for old, new in names.items()},
            files={new: self.files[old] for old, new in names.items()},
        )


def weight_like(directory: Path) -> list[str]:
    """Files of a directory that are named like weights, readable or not."""
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(WEIGHT_SUFFIXES))


def find_weights(directory: Path) -> Path:
    """The weight file of a checkpoint directory. Raises CheckpointError with what was looked for and found.

    The first name that exists must be a valid file: a broken one is not skipped for another with other weights.
    """
    for name in WEIGHT_FILES:
        path = directory / name
        if path.is_file():
            return path
        if path.is_symlink():
            raise CheckpointError(
                f"{path}: expected the weights, got a link to {str(path.readlink())!r}, where no file is; copy what it "
                "leads to as well (cp -L), or download the file again"
            )
        if path.exists():
            raise CheckpointError(f"{path}: expected a file of weights, got a directory or device; name it otherwise")
    found = weight_like(directory)
    there = f"; it holds {', '.join(found)}: if one of them is the model's, {_remedy(found)}" if found else ""
    raise CheckpointError(f"{directory}: expected one of {', '.join(WEIGHT_FILES)}, found none of them{there}")


def read_tensors(path: Path) -> Weights:
    """All tensors of a weight file or shard index, without a wrapper's prefix common to all names.

    Raises:
        CheckpointError: The file can't be read safely.
        UnavailableError: The file has no read permission.
    """
    weights = _sharded(path) if path.name.endswith(".index.json") else _file(path)
    if not weights.tensors:
        raise CheckpointError(f"{path}: expected tensors by name, found none")
    names = {name: name for name in weights.tensors}
    while prefix := _common(names.values()):
        names = {old: new.removeprefix(prefix) for old, new in names.items()}
    return weights.named(names)


def _remedy(found: Iterable[str]) -> str:
    readable = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
    known = any(name.endswith(readable) for name in found)
    return "rename it, or save it as model.safetensors" if known else "save its state dict as model.safetensors"


def _common(names: Iterable[str]) -> str | None:
    return next((p for p in PREFIXES if all(n.startswith(p) and n != p for n in names)), None)


def _file(path: Path) -> Weights:
    check_readable(path)
    tensors = _safetensors(path) if path.suffix == ".safetensors" else state_dict(load_pickled(path), path)
    return Weights(path, tensors, dict.fromkeys(tensors, path))


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, MemoryError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: expected a safetensors file; {_diagnosis(path, error)}") from error


def _diagnosis(path: Path, error: Exception) -> str:
    """The kind of the file; else the reader's message."""
    try:
        signature = identify(path)
    except OSError:
        signature = None
    if signature is None or signature.kind == "a safetensors file":
        return f"{error}; {AGAIN}"
    if signature.kind in ("a ZIP archive", "a pickle"):
        return f"this is {signature.kind}, as torch.save writes; name it model.pt"
    return f"this is {signature.kind}; {signature.remedy}"


def _sharded(index: Path) -> Weights:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index}: expected `weight_map` from tensor to shard file")
    weights = Weights(index, {}, {})
    for shard in sorted(set(weight_map.values())):
        _add(weights, _shard(index, shard))
    if absent := sorted(set(weight_map) - set(weights.tensors)):
        raise CheckpointError(f"{index}: tensors promised by the index and in no shard: {', '.join(absent)}")
    return weights


def _shard(index: Path, shard: str) -> Weights:
    if Path(shard).name != shard or "\0" in shard or len(shard.encode(errors="replace")) > MAX_NAME:
        raise CheckpointError(f"{index}: expected shard files beside the index, got {shard!r}")
    if shard.endswith(".index.json"):
        raise CheckpointError(f"{index}: expected shards that hold tensors, got the index {shard!r}")
    if not (index.parent / shard).is_file():
        raise CheckpointError(f"{index}: the shard {shard!r} is not beside it; copy or download all shards")
    return _file(index.parent / shard)


def _add(weights: Weights, shard: Weights) -> None:
    if twice := sorted(set(weights.tensors) & set(shard.tensors)):
        first = weights.files[twice[0]].name
        raise CheckpointError(
            f"{weights.origin}: expected each tensor in one shard; {twice[0]} is in {first} and in {shard.origin.name}"
        )
    weights.tensors.update(shard.tensors)
    weights.files.update(shard.files)
