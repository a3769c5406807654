"""Splits of the emoji, and the part of them that is shipped."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perceiver_deploy.datasets.emoji.source import (
    Emoji,
    Sources,
    draw,
    has_variant,
    read_emoji,
)
from perceiver_runtime.errors import DatasetError

SAMPLE = Path(__file__).with_name("sample.npz")
SEED = 0
NEW_CONCEPTS, NEW_VARIANTS = 0.1, 0.2
FAMILIAR = 6
"""Emoji that a concept must have for one of its skin tones or hairs to be held out."""

SHIPPED = 128


@dataclass(frozen=True)
class Table:
    """Pictures (N, 32, 32, 3), names, kinds and versions (N,)."""

    images: npt.NDArray[np.uint8]
    names: npt.NDArray[np.str_]
    kinds: npt.NDArray[np.str_]
    versions: npt.NDArray[np.float32]

    def take(self, rows: npt.NDArray[np.intp]) -> Table:
        """The table of those rows."""
        return Table(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Splits:
    """`concepts` shows nothing that training shows; `variants` shows its concepts in other skin tones and hairs."""

    training: Table
    variants: Table
    concepts: Table


def read_splits(sources: Sources) -> Splits:
    """Draw and split all emoji. Raises UnavailableError if a source or Pillow is not there."""
    sources.check()
    emoji = read_emoji(sources.names)
    versions = np.array([one.version for one in emoji], np.float32)
    names, kinds = (np.array([getattr(one, part) for one in emoji]) for part in ("name", "kind"))
    table = Table(draw(sources.font, emoji), names, kinds, versions)
    new_concept, new_variant = held_out(emoji)
    return Splits(
        training=table.take(np.flatnonzero(~(new_concept | new_variant))),
        variants=table.take(np.flatnonzero(new_variant)),
        concepts=table.take(np.flatnonzero(new_concept)),
    )


def held_out(emoji: list[Emoji]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which emoji (N,) are held out with their whole concept, and which as a variant of a familiar one."""
    random = np.random.default_rng(SEED)
    counts = Counter(one.concept for one in emoji)
    names = random.permutation(sorted(counts))
    chosen = set(names[: round(NEW_CONCEPTS * len(names))].tolist())
    concept = np.array([one.concept in chosen for one in emoji])
    eligible = np.array([has_variant(one) and counts[one.concept] >= FAMILIAR for one in emoji])
    return concept, eligible & ~concept & (random.random(len(emoji)) < NEW_VARIANTS)


def shipped(splits: Splits) -> Splits:
    """As many of each split, drawn at random, as are shipped."""
    random = np.random.default_rng(SEED)
    parts = (splits.training, splits.variants, splits.concepts)
    return Splits(*(part.take(random.permutation(len(part.names))[:SHIPPED]) for part in parts))


def write_sample(splits: Splits, path: Path = SAMPLE) -> None:
    """Write splits as a compressed .npz."""
    arrays = {
        f"{s.name}_{t.name}": getattr(getattr(splits, s.name), t.name) for s in fields(Splits) for t in fields(Table)
    }
    np.savez_compressed(path, **arrays)


def read_sample(path: Path = SAMPLE) -> Splits:
    """Read the shipped splits. Raises DatasetError if they are absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Splits(*(Table(*(stored[f"{s.name}_{t.name}"] for t in fields(Table))) for s in fields(Splits)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(
            f"{path}: expected pictures, names, kinds and versions of emoji; {error}; install again"
        ) from error
