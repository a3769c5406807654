"""Progress of `perceiver_runtime.progress` on stderr: the one place where a command line shows it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from perceiver_runtime.escapes import printable
from perceiver_runtime.progress import LOGGER, Done


class ProgressLines(logging.Handler):
    """Lines on stderr: each message, and of counted work its beginning and its end."""

    def __init__(self) -> None:
        super().__init__()
        self.started: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        done: Done | None = getattr(record, "progress", None)
        if done is None:
            self.line(record.getMessage())
        else:
            self.count(done)

    def count(self, done: Done) -> None:
        """Show how much of counted work is done."""
        if done.done == done.total:
            last = finished(done, self.started)
            if done.done > 1:
                self.line(last)
        elif done.what not in self.started:
            self.started[done.what] = monotonic()
            self.line(f"{done.what}: {done.total}" if done.total else done.what)

    def line(self, text: str) -> None:
        """Write one line."""
        print(printable(text), file=sys.stderr, flush=True)


def finished(done: Done, started: dict[str, float]) -> str:
    """The last line of counted work; forgets when it began."""
    seconds = monotonic() - started.pop(done.what, monotonic())
    return f"{done.what}: {done.done} in {seconds:.1f} s"


@contextmanager
def progress_shown(handler: logging.Handler | None) -> Iterator[None]:
    """Show progress by a handler until the context ends, or nothing (None)."""
    if handler is None:
        yield
        return
    level = LOGGER.level
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        handler.close()
