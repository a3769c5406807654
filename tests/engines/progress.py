"""Progress of builds, for tests that look at it or that act in the middle of a build."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perceiver_runtime.cli.progress import progress_shown
from perceiver_runtime.progress import Done


class _Handler(logging.Handler):
    def __init__(self, see: Callable[[Done], object]) -> None:
        super().__init__()
        self.see = see

    def emit(self, record: logging.LogRecord) -> None:
        if (done := getattr(record, "progress", None)) is not None:
            self.see(done)


@contextmanager
def progress_to(see: Callable[[Done], object]) -> Iterator[None]:
    """Give `see` every count of progress until the context ends."""
    with progress_shown(_Handler(see)):
        yield
