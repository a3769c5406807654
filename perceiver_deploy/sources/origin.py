"""`find`: whether a source is a checkpoint, a model of the zoo, a hub id, or a module. Nothing is fetched or run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from perceiver_deploy.checkpoints.files.tensors import weight_like
from perceiver_deploy.checkpoints.hub import is_hub_id
from perceiver_deploy.sources.code import names_code
from perceiver_deploy.zoo import ZooEntry, zoo
from perceiver_exporters.component import Blueprint
from perceiver_runtime.errors import UsageError, typed
from perceiver_runtime.manifest import MANIFEST_NAME
from perceiver_runtime.suggest import did_you_mean

EXPECTED = "expected a model of the zoo, a checkpoint directory, a hub id or a module (my_model.py:make)"


@dataclass(frozen=True)
class Origin:
    """Exactly one of a directory, an entry of the zoo, user code, a module, or (none of these) the hub id `name`.

    `name` is what a bundle of it is called. `notes` tell which of two sources of one name was taken.
    """

    name: str
    directory: Path | None = None
    entry: ZooEntry | None = None
    code: str = ""
    module: object = None
    notes: tuple[str, ...] = ()

    @property
    def on_hub(self) -> bool:
        """Whether it has to be fetched, or found in the hub's cache."""
        return self.directory is None and self.entry is None and not self.users

    @property
    def users(self) -> bool:
        """Whether it is a module of the user's own, or code that makes one."""
        return bool(self.code) or self.module is not None


def find(source: object) -> Origin:
    """Tell what a source is; a directory that holds a checkpoint goes before a model of the zoo with its name.

    Raises:
        UsageError: It is none of the three.
        UnavailableError: A directory that this user may not read.
    """
    if isinstance(source, nn.Module | Blueprint):
        return Origin(_module_name(source), module=source)
    text = _text(source)
    entry = zoo().get(text) if isinstance(source, str) else None
    path = Path(text)
    try:
        directory, file = path.is_dir(), path.exists()
        if directory and (entry is None or _holds_checkpoint(path)):
            return _directory(path, entry)
    except PermissionError as error:
        raise typed(error) or error from error
    except OSError as error:
        raise UsageError(f"source: {EXPECTED}, got {text!r:.80}: {error.strerror}") from error
    if entry is not None:
        return Origin(entry.name, entry=entry)
    if isinstance(source, str) and not file and names_code(text):
        place, _, function = text.rpartition(":")
        return Origin(f"{Path(place).stem.rpartition('.')[2] or place}-{function}", code=text)
    if file:
        raise UsageError(f"source: {EXPECTED}, got the file {text!r}; {_remedy(path)}")
    if isinstance(source, str) and is_hub_id(text):
        return Origin(text)
    if not isinstance(source, str):
        raise UsageError(f"source: {EXPECTED}, got {text!r}: there is no such directory")
    hint = did_you_mean(text, zoo()) or "; `perceiver-export models` lists the names"
    raise UsageError(f"source: {EXPECTED}, got {text!r:.200}: no such directory, and no model of that name{hint}")


def _text(source: object) -> str:
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if isinstance(text, str) and text.strip() and "\0" not in text:
            return text
    raise UsageError(f"source: {EXPECTED}, got {source!r:.80} ({type(source).__name__})")


def _module_name(source: nn.Module | Blueprint) -> str:
    return source.source.name if isinstance(source, Blueprint) else type(source).__name__


def _holds_checkpoint(path: Path) -> bool:
    return (path / "config.json").exists() or bool(weight_like(path))


def _directory(path: Path, entry: ZooEntry | None) -> Origin:
    if (path / MANIFEST_NAME).is_file() and not _holds_checkpoint(path):
        raise UsageError(
            f"source: {EXPECTED}, got the bundle {str(path)!r}; give what it was made from: "
            "`perceiver-export inspect` names it"
        )
    name = (path if path.name not in ("", "..") else path.resolve()).name or "checkpoint"
    name = name.encode("utf-8", "replace").decode("utf-8")
    notes = (f"{path}: the directory is read, not the zoo's model of that name",) if entry else ()
    return Origin(name, directory=path, notes=notes)


def _remedy(path: Path) -> str:
    if path.suffix == ".py":
        return f"name the function in it that makes the model: {str(path)!r}:make"
    if path.suffix == ".onnx":
        return "give the PyTorch checkpoint that the graph was made from"
    return f"give the directory that holds it beside the model's config.json: {str(path.parent)!r}"
