"""Options and results of the checkpoint readers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from perceiver_deploy.checkpoints.fields import FLAG, MAX_POINTS, PAIR, Kind, optional, shown
from perceiver_runtime.errors import UsageError
from perceiver_runtime.settings import Processing
from perceiver_runtime.tensors import Range


@dataclass(frozen=True)
class LoadOptions:
    """How a source is read.

    Attributes:
        image_size: (height, width) for models of any image size: Hugging Face's Fourier and conv classifiers.
        revision: Branch, tag or commit of a hub id.
        cache_dir: Cache of hub ids.
        local_files_only: Whether hub ids are only read from the cache.
        inputs: For a module of the user's own: an example of `forward`'s inputs by name (arrays with a batch axis;
            other values are constants), or an .npz file of it.
        dynamic: For such a module: by input, its shape with names for the dimensions that vary.
        ranges: MIN, OPT and MAX of dynamic dimensions, within what the model takes; the OPT of a chunk's dimension is
            the chunk's size. Dimensions that are not named keep the model's ranges.
        cut: For such a module: paths of the submodules that are to be components; none: they are found.

    Raises:
        UsageError: A value that no source could use.
    """

    image_size: tuple[int, int] | None = None
    revision: str | None = None
    cache_dir: Path | None = None
    local_files_only: bool = False
    inputs: Mapping[str, Any] | Path | None = None
    dynamic: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    cut: tuple[str, ...] = ()

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
MODULE_OPTIONS = ("inputs", "dynamic", "cut")
OWN_MODULE = "export the module itself: perceiver-export export FILE.py:FUNCTION, where FUNCTION returns it"
"""What is left for a model that no format describes."""
HUB_OPTIONS = ("revision", "cache_dir", "local_files_only")


def option(name: str) -> str:
    """An option as it is written in Python and on the command line."""
    return f"{name} (--{name.replace('_', '-')})"


DEFAULT = LoadOptions()


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A reference model with its weights, in evaluation mode.

    Attributes:
        module: The model.
        family: Its name in `FAMILIES`.
        config: Its frozen config.
        dataset: Name of the data it was trained on, if the project ships any.
        labels: Names of its classes, if the checkpoint has them.
        notes: Assumptions that users must know of.
        processing: How its inputs are made, if the checkpoint states it.
    """

    module: nn.Module
    family: str
    config: Any
    dataset: str | None = None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    processing: Processing | None = None
