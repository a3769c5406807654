"""What every importer is told, and what it returns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from perceiver_deploy.checkpoints.fields import FLAG, MAX_POINTS, PAIR, Kind, optional, shown
from perceiver_runtime.errors import UsageError


@dataclass(frozen=True)
class LoadOptions:
    """`image_size` (height, width) for models that take any: Hugging Face's Fourier and conv classifiers.

    For hub ids: which revision, where the cache is, and whether only the cache may be used. Raises UsageError for
    values that no source could use.
    """

    image_size: tuple[int, int] | None = None
    revision: str | None = None
    cache_dir: Path | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        for name, kind in OPTIONS.items():
            if not kind.holds(value := getattr(self, name)):
                raise UsageError(f"{option(name)}: expected {kind.expected}, got {shown(value)}")
        if self.image_size is not None:
            height, width = self.image_size
            if height * width > MAX_POINTS:
                raise UsageError(
                    f"{option('image_size')}: expected at most {MAX_POINTS:,} pixels, got {height} x {width}"
                )
            object.__setattr__(self, "image_size", (height, width))

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Raise UsageError if one of these options is given: `why` says what it goes with."""
        if given := [name for name in names if getattr(self, name) != getattr(DEFAULT, name)]:
            raise UsageError(f"{', '.join(map(option, given))}: {why}; leave it out")


OPTIONS: Mapping[str, Kind] = {
    "image_size": optional(PAIR),
    "revision": optional(Kind("a branch, tag or commit", lambda value: isinstance(value, str) and value != "")),
    "cache_dir": optional(Kind("a directory", lambda value: isinstance(value, (str, os.PathLike)))),
    "local_files_only": FLAG,
}
HUB_OPTIONS = ("revision", "cache_dir", "local_files_only")


def option(name: str) -> str:
    """An option as it is written in Python and on the command line."""
    return f"{name} (--{name.replace('_', '-')})"


DEFAULT = LoadOptions()


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A reference model with its weights, in evaluation mode.

    `family` is its name in `FAMILIES`, `config` its frozen config, `dataset` the name of the data it was trained
    on if the project ships any, `labels` the names of its classes if the checkpoint gives them. `notes` are
    assumptions that a user has to know.
    """

    module: nn.Module
    family: str
    config: Any
    dataset: str | None = None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
