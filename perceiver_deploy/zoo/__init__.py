"""The zoo: models by name. Models trained by this project are in this directory with their weights.

The released configurations (arXiv 2107.14795) have no weights here: theirs come from a checkpoint.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_deploy.checkpoints.native import read_config
from perceiver_deploy.families import FAMILIES, Family

ZOO_DIRECTORY = Path(__file__).parent


@dataclass(frozen=True)
class ZooEntry:
    """A model by name: its family and config, and the checkpoint directory if weights are shipped."""

    name: str
    family: Family
    config: Any
    checkpoint: Path | None = None


@functools.cache
def zoo() -> dict[str, ZooEntry]:
    """All entries by name: shipped checkpoints first, then the families' presets, which have no weights."""
    shipped = [_shipped(path.parent) for path in sorted(ZOO_DIRECTORY.glob("*/config.json"))]
    presets = [
        ZooEntry(name, family, config) for family in FAMILIES.values() for name, config in family.presets.items()
    ]
    return {entry.name: entry for entry in (*shipped, *presets)}


def _shipped(directory: Path) -> ZooEntry:
    record = read_config(directory)
    return ZooEntry(directory.name, FAMILIES[record.family], record.config, directory)
