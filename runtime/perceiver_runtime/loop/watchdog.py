"""Calls back from its own thread when a run takes too long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType


@dataclass(frozen=True)
class Hang:
    """A run that has not returned after `limit_s` seconds; `frame` is the number of its frame."""

    frame: int
    limit_s: float


class Watchdog:
    """Watches one run at a time and calls `on_hang` once for each that exceeds `limit_s`.

    A context manager around the loop. An exception of `on_hang` is kept in `error`.
    """

    def __init__(self, limit_s: float, on_hang: Callable[[Hang], object]) -> None:
        self.hangs = 0
        self.error: BaseException | None = None
        self._limit_s = limit_s
        self._on_hang = on_hang
        self._changed = threading.Condition()
        self._running: int | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="perceiver-watchdog", daemon=True)

    def begin(self, frame: int) -> None:
        """A run begins."""
        with self._changed:
            self._running = frame
            self._changed.notify()

    def end(self) -> None:
        """It has returned."""
        with self._changed:
            self._running = None
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._running is not None)
                if self._closed:
                    return
                frame = self._running
                assert frame is not None
                if self._changed.wait_for(partial(self._over, frame), self._limit_s):
                    continue
                self.hangs += 1
            self._call(Hang(frame, self._limit_s))
            with self._changed:
                self._changed.wait_for(partial(self._over, frame))

    def _over(self, frame: int) -> bool:
        return self._closed or self._running != frame

    def _call(self, hang: Hang) -> None:
        try:
            self._on_hang(hang)
        except BaseException as error:  # raised where the user waits
            self.error = self.error or error

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
