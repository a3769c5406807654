"""Write a directory completely or not at all: as a hidden sibling that is renamed when it is complete and on disk."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.outputs import check_entry, naming
from perceiver_runtime.manifest import MANIFEST_NAME

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def staged(destination: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty directory that becomes `destination` when the block ends without an exception.

    A process killed at any moment leaves `destination` as it was; its partial directory is removed by the next call.
    Raises UsageError if the destination exists (with `overwrite`: if it exists and is no bundle), OSError if the disk
    fails; both leave nothing behind.
    """
    check_destination(destination, overwrite=overwrite)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _sweep(destination)
    partial, lock = _claim(destination)
    try:
        with naming(destination):
            yield partial
            _sync(partial)
            _publish(partial, destination, overwrite=overwrite)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # what was not published, or the bundle that was replaced
        os.close(lock)


def check_destination(destination: Path, *, overwrite: bool) -> None:
    """Refuse to replace an existing path, unless `overwrite` is set and it is a bundle or an empty directory.

    Raises UsageError, also for a path that can't be a directory; UnavailableError if nothing can be written there.
    """
    if not destination.name:
        raise UsageError(f"{destination}: expected the path of a new directory")
    check_entry(destination, _partial_name(destination))
    if not destination.exists() and not destination.is_symlink():
        return
    if not overwrite:
        raise UsageError(f"{destination} exists; choose another directory, or allow overwriting it")
    if not destination.is_dir() or destination.is_symlink():
        raise UsageError(f"{destination} is no directory: it can't be overwritten by a bundle")
    if any(destination.iterdir()) and not (destination / MANIFEST_NAME).is_file():
        raise UsageError(f"{destination} holds files but no {MANIFEST_NAME}: not a bundle, so it is not overwritten")


def _partial_name(destination: Path) -> str:
    return f".{destination.name}.{secrets.token_hex(4)}.partial"


def _claim(destination: Path) -> tuple[Path, int]:
    """A new partial directory with a lock that ends with this process, and the lock's descriptor."""
    while True:
        partial = destination.with_name(_partial_name(destination))
        partial.mkdir()
        lock = _lock(partial)
        if lock is not None:
            return partial, lock


def _lock(directory: Path) -> int | None:
    """A descriptor with the lock of a directory, or None if the directory is locked or removed."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
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


def _sweep(destination: Path) -> None:
    """Remove partial directories of this destination whose process has died."""
    for stale in destination.parent.glob(f".{_literal(destination.name)}.*.partial"):
        with contextlib.suppress(OSError):  # no directory, a link, or another user's: not ours to remove
            if (lock := _lock(stale)) is not None:
                shutil.rmtree(stale, ignore_errors=True)
                os.close(lock)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _sync(directory: Path) -> None:
    """Force every file and directory below to the disk, so that the rename can't overtake the data."""
    for path in (*directory.rglob("*"), directory):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(partial: Path, destination: Path, *, overwrite: bool) -> None:
    check_destination(destination, overwrite=overwrite)  # again: another export may have finished meanwhile
    if destination.exists():
        _exchange(partial, destination)
    else:
        partial.rename(destination)
    _sync_one(destination.parent)


def _exchange(partial: Path, destination: Path) -> None:
    """Swap two directories in one step where the file system can; otherwise put the old one aside first."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        arguments = (_AT_FDCWD, os.fsencode(partial), _AT_FDCWD, os.fsencode(destination), _RENAME_EXCHANGE)
        if libc.renameat2(*arguments) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(code, os.strerror(code), str(destination))
    aside = destination.with_name(_partial_name(destination))
    destination.rename(aside)
    try:
        partial.rename(destination)
    except OSError:
        aside.rename(destination)
        raise
    shutil.rmtree(aside, ignore_errors=True)
