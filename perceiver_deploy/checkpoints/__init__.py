"""Checkpoints of every supported format, read into the reference models.

    loaded = load("deepmind/language-perceiver")       # or a directory
    loaded.module, loaded.family, loaded.config

`config.json` identifies the format of a directory; a new format is a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.checkpoints import huggingface, krasserm, lucidrains, native
from perceiver_deploy.checkpoints.fields import shown
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_deploy.checkpoints.files.tensors import weight_like
from perceiver_deploy.checkpoints.hub import is_hub_id, snapshot
from perceiver_deploy.checkpoints.loaded import DEFAULT, HUB_OPTIONS, LoadedCheckpoint, LoadOptions
from perceiver_runtime.errors import CheckpointError

__all__ = ["FORMATS", "Format", "LoadOptions", "LoadedCheckpoint", "load"]


@dataclass(frozen=True)
class Format:
    """A checkpoint format: how its config.json is recognised, and what reads it."""

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    load: Callable[[Path, LoadOptions], LoadedCheckpoint]


FORMATS: tuple[Format, ...] = (
    Format("perceiver-deploy", lambda config: "family" in config, native.load),
    Format("Hugging Face", lambda config: config.get("model_type") == "perceiver", huggingface.load),
    Format("krasserm/perceiver-io", krasserm.recognises, krasserm.load),
    Format("lucidrains/perceiver-pytorch", lucidrains.recognises, lucidrains.load),
)


def load(source: str | Path, options: LoadOptions = DEFAULT) -> LoadedCheckpoint:
    """Read a checkpoint.

    Args:
        source: A directory, or a hub id (`owner/name`) if no such directory exists.
        options: Image size, and how a hub id is fetched.

    Returns:
        The model with its weights, in evaluation mode.

    Raises:
        CheckpointError: Nothing is found, no format recognises it, or its tensors do not fit its config.
        UsageError: An option that the source has no use for.
        UnavailableError: A hub id can't be fetched.
    """
    directory = _directory(source, options)
    path = directory / "config.json"
    if not path.exists():
        found = ", ".join(weight_like(directory)) or "no weights either"
        raise CheckpointError(
            f"{path}: expected the model's config.json beside its weights, found none (in {directory}: {found}); "
            "copy it from where the model was saved"
        )
    config = read_json(path)
    for form in FORMATS:
        if form.recognises(config):
            return form.load(directory, options)
    raise CheckpointError(f"{path}: {_unknown(config)}")


def _unknown(config: Mapping[str, Any]) -> str:
    """What the config is of, if it says so, and what is read."""
    known = ", ".join(form.name for form in FORMATS)
    kind, classes = config.get("model_type"), config.get("architectures")
    if kind is None and classes is None:
        return f"expected a checkpoint of {known}; it has neither model_type nor family nor library"
    named = f"model_type {shown(kind)}, architectures {shown(classes)}"
    return f"expected a Perceiver's checkpoint of {known}; this is {named}, which is not supported"


def _directory(source: str | Path, options: LoadOptions) -> Path:
    path = Path(source)
    if path.is_dir():
        options.refuse(HUB_OPTIONS, f"goes with a hub id, got the directory {source}")
        return path
    if isinstance(source, str) and is_hub_id(source):
        return snapshot(source, options)
    raise CheckpointError(f"{source}: expected a checkpoint directory or a hub id such as deepmind/language-perceiver")
