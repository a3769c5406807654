"""PyTorch files: read without executing pickles, and the state dict in what a training loop saved."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceiver_deploy.checkpoints.files.contents import AGAIN, identify
from perceiver_runtime.errors import CheckpointError

MAX_DEPTH = 3
"""How far into nested entries a state dict is looked for."""
NO_MODEL = re.compile("optim|sched|callback|loop|metric", re.IGNORECASE)
"""Entries of a training loop that may hold tensors by name, and never a model's."""
SAFETENSORS = "save the state dict as safetensors where the model comes from"


def load_pickled(path: Path) -> Any:
    """Content of a torch.save file, tensors and plain values only. Raises CheckpointError with the kind of the file."""
    try:
        _refuse_inflated(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what can't be read is an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch.load raises whatever a damaged pickle makes it raise
        raise CheckpointError(f"{path}: expected a PyTorch file of tensors alone; {_diagnosis(path, error)}") from error


def state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The only state dict in a PyTorch file: the whole content, or an entry of it.

    Raises CheckpointError with the names of the entries if there is none, or more than one.
    """
    found = dict(_state_dicts(content, ()))
    if len(found) == 1:
        return dict(next(iter(found.values())))
    if found:
        entries = ", ".join(found)
        raise CheckpointError(
            f"{path}: expected one state dict, found several: {entries}; save the right one as model.safetensors"
        )
    raise CheckpointError(f"{path}: expected a state dict of tensors by name, got {_described(content)}; {SAFETENSORS}")


def _state_dicts(content: Any, place: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Mappings from names to tensors alone, with their places; nothing below one of them, or below a list."""
    if not isinstance(content, Mapping) or len(place) > MAX_DEPTH:
        return
    if content and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        yield ".".join(place), content
        return
    for name, value in content.items():
        if isinstance(name, str) and not NO_MODEL.search(name):
            yield from _state_dicts(value, (*place, name))


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    entries = [f"{name!s:.40} ({type(value).__name__})" for name, value in content.items()]
    others = [entry for entry, value in zip(entries, content.values(), strict=True) if not isinstance(value, Tensor)]
    shown = others or entries
    return f"a dict with {', '.join(shown[:10]) or 'no entries'}{' and more' if len(shown) > 10 else ''}"


def _refuse_inflated(path: Path) -> None:
    """torch.save stores without compression; a compressed archive may unpack to any size."""
    if sum(entry.file_size for entry in _entries(path)) > path.stat().st_size:
        raise CheckpointError(f"{path}: expected an archive without compression, as torch.save writes it")


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    """Entries of a ZIP archive; none if it is no archive, or too damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return []


def _diagnosis(path: Path, error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "its tensors do not fit into memory"
    if isinstance(error, OSError):
        return str(error)
    if unsafe := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"it holds Python objects ({unsafe[1]}), and reading them would run code that it brings; {SAFETENSORS}, "
            "without optimizer, arguments and the like"
        )
    signature = identify(path)
    if signature is None:
        return f"it is none; {AGAIN}"
    if signature.kind == "a ZIP archive":
        return _archive(path)
    if signature.kind == "a pickle":
        return f"it is a pickle that torch.save did not write, or a damaged one; {SAFETENSORS}"
    return f"this is {signature.kind}; {signature.remedy}"


def _archive(path: Path) -> str:
    """The defect of a ZIP archive that torch.load rejected."""
    names = [entry.filename for entry in _entries(path)]
    if not names:
        return f"this archive is truncated, damaged or empty; {AGAIN}"
    if any(name.endswith("/constants.pkl") for name in names):
        return f"this is a TorchScript archive, which holds code; {SAFETENSORS}"
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return f"this archive is damaged; {AGAIN}"
    return f"this is a ZIP archive of {', '.join(names[:5])}; unpack it"
