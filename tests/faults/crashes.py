"""Faults in a process at its Nth change of the disk: killed, killed inside a write, or an error of the disk.

Every change that Python code makes is counted: files opened for writing, writes, syncs, and changes of directories.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args
from unittest import mock

from perceiver_runtime.errors import PerceiverError
from perceiver_runtime.format import staging

Fault = Literal["killed before", "killed within", "full disk", "write error", "sync error"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
OPERATIONS = ("mkdir", "rmdir", "link", "unlink", "remove", "rename", "replace", "chmod", "fsync")
NEEDS_SPACE = {"open", "write", "mkdir", "link", "rename", "replace", "fsync", "exchange"}
STRIKES: dict[Fault, set[str]] = {
    "killed before": {*OPERATIONS, "open", "write", "exchange"},
    "killed within": {"write"},
    "full disk": NEEDS_SPACE,
    "write error": {"write"},
    "sync error": {"fsync"},
}
"""The operations at which a fault can strike."""
WHOLE, REFUSED, UNTYPED = 0, 3, 70


class Disk:
    """Counts changes of the disk in this process, and fails at one of them."""

    def __init__(self, fault: Fault | None = None, at: int = 0) -> None:
        self.seen: list[str] = []
        self._fault, self._at = fault, at

    def change(self, name: str, half: Callable[[], object] = lambda: None) -> None:
        """Called before each change; `half` makes a part of it."""
        number = len(self.seen)
        self.seen.append(name)
        if self._fault == "full disk" and number >= self._at and name in NEEDS_SPACE:
            half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if number != self._at or self._fault in (None, "full disk"):
            return
        if self._fault != "killed before":
            half()
        if self._fault in ("killed before", "killed within"):
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@contextlib.contextmanager
def faulty(disk: Disk) -> Iterator[None]:
    """Let all changes of the disk pass through `disk`."""

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            disk.change("write", lambda: super(File, self).write(memoryview(data).cast("B")[: len(data) // 2]))
            return super().write(data)

    opened = io.open

    def open_file(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        **options: Any,
    ) -> Any:
        if not set(mode) & set("wxa+") or isinstance(file, int):
            return opened(file, mode, buffering, encoding, errors, newline, **options)
        disk.change("open")
        raw = File(file, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            disk.change(name)
            return function(*arguments, **options)

        return call

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("io.open", open_file))
        stack.enter_context(mock.patch("builtins.open", open_file))
        for name in OPERATIONS:
            stack.enter_context(mock.patch.object(os, name, counted(name, getattr(os, name))))
        stack.enter_context(mock.patch.object(staging, "_exchange", counted("exchange", staging._exchange)))
        yield


def changes(write: Callable[[], object]) -> list[str]:
    """The changes of the disk that `write` makes, in a child process."""
    reader, writer = os.pipe()

    def record() -> None:
        disk = Disk()
        with faulty(disk):
            write()
        os.write(writer, ",".join(disk.seen).encode())

    code = forked(record)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        seen = pipe.read()
    assert code == WHOLE, code
    return seen.split(",")


def strike(write: Callable[[], object], fault: Fault, at: int) -> int:
    """How a child process ended in which `fault` struck: its exit code, or minus its signal."""

    def struck() -> None:
        with faulty(Disk(fault, at)):
            write()

    return forked(struck)


def forked(action: Callable[[], object]) -> int:
    """Run in a child process. Errors of the disk, and those that the product raises for it, end it with `REFUSED`."""
    child = os.fork()
    if child == 0:
        code = UNTYPED
        try:
            action()
            code = WHOLE
        except (OSError, PerceiverError):
            code = REFUSED
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
