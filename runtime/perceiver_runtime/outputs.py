"""Places that results are written to: checked before the work, and filled whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from perceiver_runtime.errors import UsageError, typed


def check_file(path: Path) -> None:
    """Raise what writing the file `path` would raise: UsageError for a path that can't be one, UnavailableError."""
    with _typed_errors():
        if path.is_dir():
            raise UsageError(f"{path} is a directory; name a file")
        if not path.exists() or path.is_file():
            _probe(_real(path).parent, path.name)


def check_directory(path: Path, longest: str = "") -> None:
    """Raise what making the directory `path`, if it is not there yet, and writing an entry `longest` would raise."""
    with _typed_errors():
        absolute = path.absolute()
        existing = next(place for place in (absolute, *absolute.parents) if os.path.lexists(place))
        if not existing.is_dir():
            raise UsageError(f"{existing} is no directory; name another path")
        names = (*absolute.relative_to(existing).parts, longest)
        _probe(existing, max(names, key=lambda name: len(os.fsencode(name))))


@contextlib.contextmanager
def replacing(path: Path, *, follow: bool = True) -> Iterator[Path]:
    """Yield a new file's path, with the suffix of `path`, which it replaces when the block ends without an exception.

    A link at `path` is kept, and the file that it names replaced, unless `follow` is false. Devices and pipes are
    written directly.
    """
    target = _real(path) if follow else path
    if target.exists() and not target.is_file():
        yield target
        return
    partial = target.with_name(_partial(target.name))
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _real(path: Path) -> Path:
    """The path without links; unlike `Path.resolve`, also of a link to itself."""
    return Path(os.path.realpath(path))


def _partial(name: str) -> str:
    return f".{secrets.token_hex(4)}.{name}"


def _probe(directory: Path, name: str) -> None:
    """Make and remove an entry, whose name is as long as that of a partial file: permissions alone say too little."""
    probe = directory / _partial(name)
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        error.filename = str(directory / name)
        raise


@contextlib.contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise typed(error) or error from error
