"""What every importer is told, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True)
class LoadOptions:
    """`image_size` (height, width) for models that take images of any size and whose config names none.

    For hub ids: which revision, where the cache is, and whether only the cache may be used.
    """

    image_size: tuple[int, int] | None = None
    revision: str | None = None
    cache_dir: Path | None = None
    local_files_only: bool = False


DEFAULT = LoadOptions()


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A reference model with its weights, in evaluation mode.

    `family` is its name in `FAMILIES`, `config` its frozen config, `dataset` the name of the data it was trained
    on if the project ships any, `labels` the names of its classes if the checkpoint gives them.
    """

    module: nn.Module
    family: str
    config: Any
    dataset: str | None = None
    labels: tuple[str, ...] = ()
