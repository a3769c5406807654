"""Write a directory completely or not at all: as a hidden sibling that is renamed when it is complete and on disk."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.outputs import check_entry, exclusive, literal, locked, naming, stale_entries, sync
from perceiver_runtime.manifest import MANIFEST_NAME

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_ASIDE = ".replaced"


@contextlib.contextmanager
def staged(destination: Path, *, overwrite: bool = False, confirm: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield an empty directory that becomes `destination` when the block ends without an exception.

    A process killed at any moment leaves `destination` as it was; its partial directory is removed by the next call.
    `confirm` is called last, when no other process can change `destination`; it raises to keep what is there.
    Raises UsageError if the destination exists (with `overwrite`: if it exists and is no bundle), OSError if the disk
    fails; both leave nothing behind.
    """
    check_destination(destination, overwrite=overwrite)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _sweep(destination)
    check_destination(destination, overwrite=overwrite)  # again: a bundle may be back
    partial, lock = _claim(destination)
    try:
        with naming(destination):
            yield partial
            _sync(partial)
            with exclusive(destination):
                confirm()
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
        lock = locked(partial, os.O_DIRECTORY)
        if lock is not None:
            return partial, lock


def _sweep(destination: Path) -> None:
    """Remove partial directories of this destination whose process has died; put back the bundle that one put aside."""
    for aside in destination.parent.glob(f".{literal(destination.name)}.{'[0-9a-f]' * 8}{_ASIDE}"):
        with contextlib.suppress(OSError), exclusive(destination):
            if destination.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(destination)
    for stale, held in stale_entries(destination.parent, f".{literal(destination.name)}.*.partial", os.O_DIRECTORY):
        shutil.rmtree(stale, ignore_errors=True)
        os.close(held)


def _sync(directory: Path) -> None:
    """Force every file and directory below to the disk, so that the rename can't overtake the data."""
    for path in (*directory.rglob("*"), directory):
        sync(path)


def _publish(partial: Path, destination: Path, *, overwrite: bool) -> None:
    check_destination(destination, overwrite=overwrite)  # another export may have finished meanwhile
    if destination.exists():
        _exchange(partial, destination)
    else:
        partial.rename(destination)
    sync(destination.parent)


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
    aside = destination.with_name(_partial_name(destination)).with_suffix(_ASIDE)
    destination.rename(aside)
    try:
        partial.rename(destination)
    except OSError:
        aside.rename(destination)
        raise
    shutil.rmtree(aside, ignore_errors=True)
