"""Checkpoints of every supported origin, read into the reference models.

    loaded = load("deepmind/language-perceiver")       # or a directory
    loaded.module, loaded.family, loaded.config

`config.json` says which format a directory holds; adding a format is a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.checkpoints import huggingface, krasserm, lucidrains, native
from perceiver_deploy.checkpoints.hub import is_hub_id, snapshot
from perceiver_deploy.checkpoints.loaded import DEFAULT, LoadedCheckpoint, LoadOptions
from perceiver_deploy.checkpoints.tensors import read_json
from perceiver_runtime.errors import CheckpointError

__all__ = ["FORMATS", "Format", "LoadOptions", "LoadedCheckpoint", "load"]


@dataclass(frozen=True)
class Format:
    """One kind of checkpoint directory: how its config.json looks, and who reads it."""

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    load: Callable[[Path, LoadOptions], LoadedCheckpoint]


FORMATS: tuple[Format, ...] = (
    Format(
        "perceiver-deploy", lambda config: "family" in config, lambda directory, _: native.load_checkpoint(directory)
    ),
    Format("Hugging Face", lambda config: config.get("model_type") == "perceiver", huggingface.load),
    Format("krasserm/perceiver-io", krasserm.recognises, krasserm.load),
    Format("lucidrains/perceiver-pytorch", lucidrains.recognises, lucidrains.load),
)


def load(source: str | Path, options: LoadOptions = DEFAULT) -> LoadedCheckpoint:
    """Read a checkpoint directory, or a hub id (`owner/name`) where no such directory exists.

    Raises CheckpointError if there is none, if no format recognises it, or if its tensors do not fit its config;
    UnavailableError if a hub id can't be fetched.
    """
    directory = _directory(source, options)
    config = read_json(directory / "config.json")
    for form in FORMATS:
        if form.recognises(config):
            return form.load(directory, options)
    known = ", ".join(form.name for form in FORMATS)
    raise CheckpointError(f"{directory / 'config.json'}: expected a checkpoint of {known}; it is none of them")


def _directory(source: str | Path, options: LoadOptions) -> Path:
    path = Path(source)
    if path.is_dir():
        return path
    if isinstance(source, str) and is_hub_id(source):
        return snapshot(source, options)
    raise CheckpointError(f"{source}: expected a checkpoint directory or a hub id such as deepmind/language-perceiver")
