"""Progress of long work, as log records: the packages report it, a command line shows it.

A program that wants to see it adds a handler to `LOGGER`; without one nothing is shown.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import TypeVar

LOGGER = logging.getLogger("perceiver.progress")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Done:
    """How many of `total` items of the work called `what` are done (`total` None: unknown)."""

    what: str
    done: int
    total: int | None


def report(message: str) -> None:
    """Log one line of progress, at level INFO."""
    LOGGER.info("%s", message)


def count(what: str, done: int, total: int | None) -> None:
    """Log at level DEBUG, as the record's `progress`, how many of `total` items of work are done (None: unknown)."""
    LOGGER.debug("%s", what, extra={"progress": Done(what, done, total)})


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items, and log how many of them are done.

    Args:
        items: What is worked on, one after the other.
        what: Name of the work, as a bar shows it.
        total: Number of items; None takes it from `items`, if that has a length.

    Yields:
        Each item. Before it, and once after the last or where the loop is left, a record at level DEBUG whose attribute
        `progress` is a `Done`; the last one has as its total what is done.
    """
    number = len(items) if total is None and isinstance(items, Sized) else total
    done = -1
    try:
        for done, item in enumerate(items):
            count(what, done, number)
            yield item
        done += 1
    finally:
        if done >= 0:
            count(what, done, done)
