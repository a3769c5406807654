"""Files of a bundle: each is opened once, and parsed from the descriptor that was hashed.

Files can be renamed, replaced or deleted meanwhile: an opened bundle stays the one that was checked. A change in place
is detected by `HeldFile.read` and `HeldFile.check`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from perceiver_runtime.errors import BundleError, UsageError

BLOCK_BYTES = 1 << 20
MIN_SPARSE, MAX_HOLES = 1 << 28, 16
"""A larger file must have one part in so many on disk: holes cost nothing to make, and hours to hash."""
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Never through a link; a pipe under a file's name must not make an opening wait."""


def open_directory(path: Path) -> int:
    """A descriptor of a bundle's directory, to which its files are opened. Raises BundleError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: expected a bundle directory; there is none. Check the path or export again"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: expected a bundle directory that can be opened: {error}") from error


def open_file(directory: int, path: Path, relative: str) -> int:
    """A descriptor of a regular file in the directory, reached without a link. Raises BundleError."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts:
        raise BundleError(f"manifest: path {relative!r} leaves the bundle; expected a relative path without '..'")
    where = path / pure
    with contextlib.ExitStack() as stack:
        try:
            for part in pure.parts[:-1]:
                directory = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=directory)
                stack.callback(os.close, directory)
            descriptor = os.open(pure.name, _FLAGS, dir_fd=directory)
        except FileNotFoundError as error:
            raise BundleError(
                f"{where}: listed in the manifest but missing; copy the bundle whole or export again"
            ) from error
        except (OSError, ValueError) as error:
            if any((path / p).is_symlink() for p in (pure, *pure.parents)):
                raise BundleError(
                    f"{where}: a link that leaves the bundle, or may; copy the file itself into the bundle"
                ) from error
            raise BundleError(f"{where}: can't be opened: {error}; give this user access, or copy it again") from error
    status = os.fstat(descriptor)
    if problem := _no_content(status):
        os.close(descriptor)
        raise BundleError(f"{where}: expected {problem}; copy the bundle whole or export again")
    return descriptor


def _no_content(status: os.stat_result) -> str:
    """What was expected in place of a file that can't be part of a bundle, and what is there; empty if it can."""
    if not stat.S_ISREG(status.st_mode):
        return "a file, got something else"
    if status.st_size > MIN_SPARSE and status.st_blocks * 512 * MAX_HOLES < status.st_size:
        return f"{status.st_size:,} bytes on disk, got a sparse file with {status.st_blocks * 512:,}"
    return ""


def unlisted(directory: int, listed: Container[str]) -> Iterator[str]:
    """What is in the directory, links included, but not listed. Hidden names at its top are not looked at."""
    folders = [""]
    while folders:
        folder = folders.pop()
        descriptor = os.open(folder or ".", _FLAGS | os.O_DIRECTORY, dir_fd=directory)
        try:
            with os.scandir(descriptor) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    relative = f"{folder}{entry.name}"
                    if relative.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{relative}/")
                    elif relative not in listed:
                        yield relative
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Part:
    """A range of a file that has a hash of its own."""

    sha256: str
    start: int
    length: int


def refuse_pickling(held: object) -> NoReturn:
    """`__reduce__` of what holds files and memory of this process. Raises UsageError."""
    raise UsageError(f"{type(held).__name__}: can't be pickled or copied; pass the bundle's path, and open it there")


class HeldFile:
    """A file that stays open as long as its bundle. Safe to use from several threads."""

    __reduce__ = refuse_pickling

    def __init__(self, descriptor: int, path: Path, parts: Sequence[Part]) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._kept: bytes | None = None
        self._seen = _state(descriptor)
        self.path = path
        self.parts = tuple(parts)
        self.size = self._seen[0]

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[int]:
        """A descriptor of its own inside of the block. Raises UsageError if the bundle is closed."""
        with self._lock:
            if self._descriptor < 0:
                raise UsageError(f"{self.path}: its bundle is closed; open it again")
            own = os.dup(self._descriptor)
        try:
            yield own
        finally:
            os.close(own)

    def check_part(self, part: Part) -> None:
        """Hash one part of the file. Raises BundleError."""
        digest = hashlib.sha256()
        with self.descriptor() as descriptor:
            for block in _blocks(descriptor, part.start, part.length, BLOCK_BYTES):
                digest.update(block)
        self._compare(digest.hexdigest(), part)

    def keep(self) -> None:
        """Hash the file and keep its content for the first `read`. Raises BundleError."""
        self._kept = self.read()

    def read(self) -> bytes:
        """The content, in private memory. Raises BundleError if it does not match its hash."""
        kept, self._kept = self._kept, None
        if kept is not None:
            return kept
        content = self.read_unhashed()
        view = memoryview(content)
        for part in self.parts:
            self._compare(hashlib.sha256(view[part.start : part.start + part.length]).hexdigest(), part)
        return content

    def read_unhashed(self) -> bytes:
        """A private copy of a large file that was already hashed; `check` must be called afterwards."""
        with self.descriptor() as descriptor:
            return b"".join(_blocks(descriptor, 0, self.size, self.size))

    def place(self, target: Path) -> None:
        """Create `target` as a hard link to the file, or as a copy. Raises OSError."""
        with contextlib.suppress(OSError):  # no hard links here (FAT, some network mounts), or deleted meanwhile
            os.link(self.path, target, follow_symlinks=False)
            if os.path.samestat(target.lstat(), os.fstat(self._descriptor)):
                return
            target.unlink()
        self.copy(target)

    def copy(self, target: Path) -> None:
        """Copy the file to `target`, where nothing is yet. Raises OSError."""
        with target.open("xb") as file:
            file.write(self.read())

    def check(self) -> None:
        """Raise BundleError if the file was changed in place since it was opened; costs microseconds."""
        if self._seen != self._now():
            raise BundleError(
                f"{self.path}: changed in place while it is open, so that answers may be wrong: open the bundle again; "
                "replace files by renaming, never in place, or open with copy_weights"
            )

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _now(self) -> tuple[int, int]:
        try:
            return _state(self._descriptor)
        except OSError as error:  # closed by another thread
            raise UsageError(f"{self.path}: its bundle is closed; open it again") from error

    def _compare(self, digest: str, part: Part) -> None:
        if digest != part.sha256:
            where = f" from byte {part.start}" if part.start else ""
            raise BundleError(
                f"{self.path}{where}: expected sha256 {part.sha256}, got {digest}; the file was changed or damaged"
            )


def _state(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def _blocks(descriptor: int, start: int, length: int, block: int) -> Iterator[bytes]:
    """Bytes of a file from `start`: `length`, or as many as there are."""
    while length > 0 and (data := os.pread(descriptor, min(block, length), start)):
        yield data
        start += len(data)
        length -= len(data)
