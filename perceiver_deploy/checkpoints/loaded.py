"""What every importer returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


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
