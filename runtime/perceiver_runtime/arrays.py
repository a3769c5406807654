"""Arrays from and to NumPy's files, for the command line. Pickled objects are refused."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.outputs import replacing
from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class ArrayShape:
    """Name, type and shape of one result."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def load_feeds(archive: Path | None, pairs: Sequence[str]) -> dict[str, Array]:
    """Inputs from an .npz file and `name=file.npy` pairs. Raises UsageError, or FeedError for an unreadable file."""
    feeds = dict(_read(archive)) if archive else {}
    for pair in pairs:
        name, separator, file = pair.partition("=")
        if not (name and separator and file):
            raise UsageError(f"--input {pair!r}; expected NAME=FILE.npy")
        if name in feeds:
            raise UsageError(f"--input {name}: given twice")
        feeds[name] = _single(Path(file))
    return feeds


def save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name to an .npz file, whole or not at all. Raises OSError (the disk)."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def shapes(arrays: Mapping[str, Array]) -> tuple[ArrayShape, ...]:
    """What the arrays look like."""
    return tuple(ArrayShape(name, array.dtype.name, array.shape) for name, array in arrays.items())


def _read(path: Path) -> Mapping[str, Array]:
    content = _load(path)
    if isinstance(content, np.ndarray):
        raise FeedError(f"{path}: expected an .npz file of named arrays, got a single array; use --input NAME={path}")
    return content


def _single(path: Path) -> Array:
    content = _load(path)
    if not isinstance(content, np.ndarray):
        raise FeedError(f"{path}: expected an .npy file of one array, got an archive; use --inputs {path}")
    return content


def _load(path: Path) -> Array | Mapping[str, Array]:
    try:
        content = np.load(path, allow_pickle=False)
        loaded: Array | Mapping[str, Array] = content if isinstance(content, np.ndarray) else dict(content)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise FeedError(f"{path}: expected arrays saved by numpy.save or numpy.savez: {error}") from error
    return loaded
