"""Output paths: checked before the work starts, and written completely or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from perceiver_runtime.errors import UsageError, typed
from perceiver_runtime.manifest import MANIFEST_NAME


def check_file(path: Path) -> None:
    """Raise UsageError or UnavailableError if the file `path` can't be written."""
    with _typed_errors(path):
        if path.is_dir():
            raise UsageError(f"{path} is a directory; name a file")
        _check_outside_bundles(path)
        if not path.exists() or path.is_file():
            _probe(_real(path).with_name(_partial(path.name)))


def check_directory(path: Path) -> None:
    """Raise UsageError or UnavailableError if the directory `path`, or an entry in it, can't be created."""
    with _typed_errors(path):
        existing = _existing(path)
        _check_outside_bundles(path)
        _probe(existing / _partial(""))


def check_entry(path: Path, partial: str) -> None:
    """Raise UsageError or UnavailableError if an entry called `partial` can't be created in the parent of `path`."""
    with _typed_errors(path):
        existing = _existing(path.parent)
        _check_outside_bundles(path)
        _probe(existing / partial)


@contextlib.contextmanager
def replacing(path: Path, *, follow: bool = True) -> Iterator[Path]:
    """Yield the path of an empty file, which is synced and replaces `path` when the block ends without an exception.

    A process killed at any moment leaves `path` as it was; its partial file is removed by the next call.
    A link at `path` is kept and its target replaced, unless `follow` is false. Devices and pipes are written directly.
    """
    target = _real(path) if follow else path
    if target.exists() and not target.is_file():
        yield target
        return
    for stale, held in stale_entries(target.parent, f".{_TOKEN}.{literal(target.name)}"):
        stale.unlink()
        os.close(held)
    with naming(target):
        partial, lock = _claim(target)
    try:
        with naming(target):
            yield partial
            sync(partial)
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
        os.close(lock)


def _claim(target: Path) -> tuple[Path, int]:
    """A new, empty partial file, and a descriptor with its lock."""
    while True:
        partial = target.with_name(_partial(target.name))
        partial.touch(exist_ok=False)
        if (lock := locked(partial)) is not None:
            return partial, lock


def locked(path: Path, kind: int = 0) -> int | None:
    """A descriptor with the lock of an entry, which ends with this process; None if it is locked or removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | kind)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if os.fstat(descriptor).st_nlink == 0:  # removed between opening and locking
        os.close(descriptor)
        return None
    return descriptor


def stale_entries(directory: Path, pattern: str, kind: int = 0) -> Iterator[tuple[Path, int]]:
    """Partial entries whose process has died, with their locks."""
    for path in directory.glob(pattern):
        with contextlib.suppress(OSError):  # of another kind, a link, or another user's: not ours to remove
            if (lock := locked(path, kind)) is not None:
                yield path, lock


def literal(name: str) -> str:
    """A name as part of a pattern of `Path.glob`."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def sync(path: Path) -> None:
    """Force a file or directory to the disk, so that a rename can't overtake the data. Raises OSError (the disk)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock of the directory of `path`, for what is read, changed and written again; others wait.

    A process that dies gives it up.
    """
    descriptor = os.open(_real(path).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Set the path of an OSError that has none, as `write` on a full disk raises."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _check_outside_bundles(path: Path) -> None:
    """Refuse paths in bundles: a bundle with an unlisted file can't be opened."""
    for place in _real(path).parents:
        if (place / MANIFEST_NAME).is_file() and (place / "onnx").is_dir():
            raise UsageError(f"{path} is inside the bundle {place}, which takes no other files; name a place outside")


def _real(path: Path) -> Path:
    """The path without links; unlike `Path.resolve`, also of a link to itself."""
    return Path(os.path.realpath(path))


def _partial(name: str) -> str:
    return f".{secrets.token_hex(4)}.{name}"


_TOKEN = "[0-9a-f]" * 8
"""Pattern of the token of a partial name."""


def _existing(path: Path) -> Path:
    """The nearest directory above, or the path itself, that exists; refused where one of the others can't be made."""
    absolute = path.absolute()
    existing = next(place for place in (absolute, *absolute.parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise UsageError(f"{existing} is no directory; name another path")
    for name in absolute.relative_to(existing).parts:
        with contextlib.suppress(FileNotFoundError):
            (existing / name).lstat()  # a name may be too long
    return existing


def _probe(entry: Path) -> None:
    """Create and remove an entry; permissions alone do not tell whether that is possible."""
    entry.mkdir()
    left = entry.parent.glob(f".{_TOKEN}{literal(entry.name[9:])}")  # by processes that were killed here
    for path in (entry, *left):
        with contextlib.suppress(OSError):  # removed by another process, or no empty directory
            path.rmdir()


@contextlib.contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise typed(error) or error from error
