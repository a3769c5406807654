"""The emoji that the package ships: some of each split."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import DatasetError

SAMPLE = Path(__file__).with_name("sample.npz")


@dataclass(frozen=True)
class Table:
    """Pictures (N, 32, 32, 3), names, kinds and versions (N,)."""

    images: npt.NDArray[np.uint8]
    names: npt.NDArray[np.str_]
    kinds: npt.NDArray[np.str_]
    versions: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Splits:
    """`variants` are other skin tones and hairs of concepts in `training`; `concepts` share no concept with it."""

    training: Table
    variants: Table
    concepts: Table


def read_sample(path: Path = SAMPLE) -> Splits:
    """Read the shipped splits. Raises DatasetError if they are absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Splits(*(Table(*(stored[f"{s.name}_{t.name}"] for t in fields(Table))) for s in fields(Splits)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(
            f"{path}: expected pictures, names, kinds and versions of emoji; {error}; install again"
        ) from error
