"""Arrays from and to NumPy's files, for the command line. Headers are read first; pickled objects are refused."""

from __future__ import annotations

import contextlib
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, BinaryIO

import numpy as np

from perceiver_runtime.errors import FeedError, PerceiverError, UsageError
from perceiver_runtime.format.outputs import replacing
from perceiver_runtime.tensors import Array, Profile, TensorSpec

NPY, SUFFIX = b"\x93NUMPY", ".npy"


@dataclass(frozen=True)
class ArrayShape:
    """Name, type and shape of one result."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, of which the header was read: `member` of an archive, or the file itself (None)."""

    path: Path
    member: str | None
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    def load(self) -> Array:
        """Read the data. Raises FeedError."""
        with _refusing(self.path), _opened(self.path, self.member) as (file, _):
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
            return array

    def rows(self, size: int) -> Iterator[Array]:
        """Read at most `size` rows of the first axis at a time, so that the whole never is in memory.

        Args:
            size: Rows of a piece.

        Yields:
            The pieces (rows, ...), in order.

        Raises:
            FeedError: The array has no rows, is stored by columns, or the file is damaged.
        """
        if not self.shape:
            raise FeedError(f"{self}: expected an array of samples, got a single number")
        with _refusing(self.path), _opened(self.path, self.member) as (file, _):
            if _read_header(file, self.path)[1] and len(self.shape) > 1:
                raise FeedError(f"{self}: expected rows one after the other; save np.ascontiguousarray(array)")
            row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
            for start in range(0, self.shape[0], size):
                count = min(size, self.shape[0] - start)
                content = file.read(count * row_bytes)
                if len(content) != count * row_bytes:
                    raise FeedError(f"{self}: expected {self.shape[0]} rows, got fewer; copy the file again")
                yield np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])

    def __str__(self) -> str:
        return f"{self.path}: {self.member.removesuffix(SUFFIX)}" if self.member else str(self.path)


def archived(path: Path) -> dict[str, StoredArray]:
    """The arrays of an .npz file, of which the headers are read. Raises FeedError."""
    return _archive(path)


def stored_feeds(archive: Path | None, pairs: Sequence[str]) -> dict[str, StoredArray]:
    """Inputs from an .npz file and `name=file.npy` pairs. Raises UsageError, or FeedError for an unreadable file."""
    files: dict[str, Path] = {}
    for pair in pairs:
        name, separator, file = pair.partition("=")
        if not (name and separator and file):
            raise UsageError(f"--input {pair!r}; expected NAME=FILE.npy")
        if name in files:
            raise UsageError(f"--input {name}: given twice")
        files[name] = Path(file)
    feeds = _archive(archive) if archive else {}
    if both := sorted(set(feeds) & set(files)):
        raise UsageError(f"--input {', '.join(both)}: given twice")
    return {**feeds, **{name: _single(file) for name, file in files.items()}}


def load(
    stored: Mapping[str, StoredArray], specs: Sequence[TensorSpec], profiles: Sequence[Profile]
) -> dict[str, Array]:
    """Read arrays whose headers fit the inputs. Raises FeedError for others: a few bytes can claim gigabytes."""
    known = {spec.name: spec for spec in specs}
    for name, array in stored.items():
        if name not in known:
            raise FeedError(f"{array.path}: no input {name!r}; expected {', '.join(known)}")
        _check_header(array, known[name], profiles)
    return {name: array.load() for name, array in stored.items()}


def save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name to an .npz file, whole or not at all. Raises OSError (the disk)."""
    with replacing(path) as partial, partial.open("wb") as file, zipfile.ZipFile(_seekable(file), "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}{SUFFIX}", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def _seekable(file: BinaryIO) -> Any:
    """The file as zipfile may take it: a device such as /dev/null can be written, and answers any position with 0."""
    regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    return file if regular else SimpleNamespace(write=file.write, flush=file.flush)


def shapes(arrays: Mapping[str, Array]) -> tuple[ArrayShape, ...]:
    """What the arrays look like."""
    return tuple(ArrayShape(name, array.dtype.name, array.shape) for name, array in arrays.items())


def _check_header(array: StoredArray, spec: TensorSpec, profiles: Sequence[Profile]) -> None:
    largest = {s: max(p.dimensions[s].max for p in profiles if s in p.dimensions) for s in _bounded(spec, profiles)}
    fits = len(array.shape) == spec.rank and all(
        size <= (dimension if isinstance(dimension, int) else largest.get(dimension, size))
        for dimension, size in zip(spec.shape, array.shape)  # noqa: B905 - ranks are equal
    )
    if not fits or array.dtype != spec.dtype:
        bounds = "".join(f", {symbol} at most {size}" for symbol, size in largest.items())
        raise FeedError(f"{array.path}: expected {spec}{bounds}, got {array.dtype}{list(array.shape)}")


def _bounded(spec: TensorSpec, profiles: Sequence[Profile]) -> list[str]:
    return [symbol for symbol in spec.symbols if any(symbol in profile.dimensions for profile in profiles)]


def _archive(path: Path) -> dict[str, StoredArray]:
    with _refusing(path):
        if _starts_like_npy(path):
            raise FeedError(
                f"{path}: expected an .npz file of named arrays, got a single array; use --input NAME={path}"
            )
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        names = [member.removesuffix(SUFFIX) for member in members]
        if len(set(names)) != len(names):
            raise FeedError(f"{path}: a name occurs twice in the archive")
        return {name: _header(path, member) for name, member in zip(names, members, strict=True)}


def _single(path: Path) -> StoredArray:
    with _refusing(path):
        if not _starts_like_npy(path) and zipfile.is_zipfile(path):
            raise FeedError(f"{path}: expected an .npy file of one array, got an archive; use --inputs {path}")
        return _header(path, None)


def _starts_like_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(NPY)) == NPY


def _header(path: Path, member: str | None) -> StoredArray:
    with _opened(path, member) as (file, size):
        shape, _, dtype = _read_header(file, path)
        start = file.tell()
    if dtype.hasobject:
        raise FeedError(f"{path}: expected numbers, got pickled objects, which could run code")
    if not all(size >= 0 for size in shape) or start + math.prod(shape) * dtype.itemsize != size:
        raise FeedError(f"{path}: {dtype}{list(shape)} does not fit the {size - start} bytes after its header")
    return StoredArray(path, member, dtype, shape)


def _read_header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is stored by columns, and type."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise FeedError(f"{path}: expected version 1 or 2 of NumPy's format, got {version}")
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = readers[version](file)
    return found


@contextlib.contextmanager
def _opened(path: Path, member: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """A file or a member of an archive, with its stated size in bytes."""
    if member is None:
        with path.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
        return
    with zipfile.ZipFile(path) as archive, archive.open(member) as entry:
        yield entry, archive.getinfo(member).file_size


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """FeedError for whatever zipfile, its decompressors and NumPy raise for a damaged file."""
    try:
        yield
    except (PerceiverError, MemoryError):
        raise
    except Exception as error:
        raise FeedError(f"{path}: expected arrays saved by numpy.save or numpy.savez: {error}") from error
