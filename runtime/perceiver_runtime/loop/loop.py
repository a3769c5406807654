"""The loop: a slot of one for the newest frame, and the thread that waits for answers."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from perceiver_runtime.errors import UsageError
from perceiver_runtime.loop.clock import Clock
from perceiver_runtime.loop.histogram import LatencyHistogram, LatencySummary
from perceiver_runtime.loop.watchdog import Hang, Watchdog
from perceiver_runtime.tensors import Array

logger = logging.getLogger(__name__)
JOIN_S = 2.0
"""How long a source may take to give its last frame after the loop has stopped."""


class Runs(Protocol):
    """What answers frames: a `Session`, or anything else with its `run`."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Outputs by name."""
        ...


@dataclass(frozen=True)
class Frame:
    """Feeds of one run.

    Attributes:
        feeds: Inputs by name. Arrays must not be changed before the frame is answered.
        captured_s: When the frame was taken, in seconds of the loop's clock (`time.monotonic`, which V4L2 also uses).
        index: Number of the frame, counted from 0 in the order of arrival, dropped frames included.
    """

    feeds: Mapping[str, Any]
    captured_s: float
    index: int = 0


@dataclass(frozen=True)
class LoopReport:
    """What a loop has done.

    Attributes:
        frames: Frames that arrived; each was answered or dropped, but for those in the slot or in a run.
        answered: Frames that the session answered.
        dropped: Frames that were replaced by a newer one before they were taken.
        missed: Answers that came later than the deadline; None without a deadline.
        idle: Turns of a fixed rate without a new frame.
        skipped: Turns of a fixed rate that passed while the loop was busy.
        hangs: Runs longer than the limit; None without a limit.
        seconds: Duration of the loop.
        latency: From the capture of a frame to the session's answer; None if nothing was answered.
    """

    frames: int
    answered: int
    dropped: int
    missed: int | None
    idle: int
    skipped: int
    hangs: int | None
    seconds: float
    latency: LatencySummary | None


class Loop:
    """Answers the newest frame, again and again.

    Frames come from a source that `run` reads in a thread, or from any thread that calls `push`, such as a camera's
    callback. A frame that is replaced before it is taken is dropped, so that an answer is never older than the run
    before it and its own: at most two periods of a model that is slower than the camera.

    Args:
        session: An open session.
        handler: Called with the outputs and the frame after each run, in the thread of `run`.
        rate_hz: Runs per second; None runs as soon as there is a frame. Turns that pass while a run lasts are skipped.
        deadline_s: Latest answer after the capture; None with a rate is one of its periods.
        limit_s: Longest run; `on_hang` is called once for each that exceeds it.
        on_hang: Called in a thread of its own, while the run still hangs.
        clock: Time of the loop.

    Raises:
        UsageError: A number is not above 0, or one of `limit_s` and `on_hang` is given without the other.
    """

    def __init__(
        self,
        session: Runs,
        handler: Callable[[dict[str, Array], Frame], object],
        *,
        rate_hz: float | None = None,
        deadline_s: float | None = None,
        limit_s: float | None = None,
        on_hang: Callable[[Hang], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        for name, value in (("rate_hz", rate_hz), ("deadline_s", deadline_s), ("limit_s", limit_s)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name}: expected a number above 0, or None, got {value}")
        if (limit_s is None) != (on_hang is None):
            raise UsageError("limit_s and on_hang: expected both or neither; give the limit and what to do after it")
        self._session = session
        self._handler = handler
        self._period_s = None if rate_hz is None else 1 / rate_hz
        self._deadline_s = self._period_s if deadline_s is None else deadline_s
        self._watchdog = None if limit_s is None or on_hang is None else Watchdog(limit_s, on_hang)
        self._clock = clock or Clock()
        self._changed = threading.Condition()  # reentrant, for stop() in a signal's handler
        self._slot: Frame | None = None
        self._stopping = self._ended = self._used = False
        self._error: BaseException | None = None
        self._frames = self._answered = self._dropped = self._missed = self._idle = self._skipped = 0
        self._latency = LatencyHistogram()
        self._started_s: float | None = None
        self._stopped_s: float | None = None

    def push(self, feeds: Mapping[str, Any], captured_s: float | None = None) -> None:
        """Put the newest frame into the slot, from any thread.

        Args:
            feeds: Inputs by name.
            captured_s: When it was taken, in seconds of the clock; None is now.

        Raises:
            UsageError: The time is not a finite number.
        """
        captured = self._clock.now() if captured_s is None else captured_s
        if not math.isfinite(captured):
            raise UsageError(f"captured_s: expected seconds of the loop's clock, got {captured}")
        with self._changed:
            self._dropped += self._slot is not None
            self._slot = Frame(feeds, captured, self._frames)
            self._frames += 1
            self._changed.notify()

    def stop(self) -> None:
        """End `run` after the run that is under way. Can be called from any thread and from a signal's handler."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self, source: Iterable[Mapping[str, Any] | Frame] | None = None) -> LoopReport:
        """Answer frames until the source ends or `stop` is called. A loop runs once.

        Args:
            source: Feeds, or frames with the time of their capture. Read in a thread, which also closes it. None
                answers what `push` gives.

        Returns:
            What was done.

        Raises:
            UsageError: The loop has run.
            Exception: Whatever the source, the session, the handler or `on_hang` raised.
        """
        if self._used:
            raise UsageError("a loop runs once; make another")
        self._used = True
        self._started_s = self._clock.now()
        reader = threading.Thread(target=self._read, args=(source,), name="perceiver-source", daemon=True)
        try:
            with ExitStack() as stack:
                if self._watchdog:
                    stack.enter_context(self._watchdog)
                if source is not None:
                    reader.start()
                self._answer_all()
        finally:
            self.stop()
            self._stopped_s = self._clock.now()
            if source is not None:
                reader.join(JOIN_S)
                if reader.is_alive():
                    logger.warning("the source gave no frame for %s s after the loop stopped; left behind", JOIN_S)
        if error := self._failure():
            raise error
        return self.report()

    def report(self) -> LoopReport:
        """What was done so far, from any thread."""
        end = self._clock.now() if self._stopped_s is None else self._stopped_s
        with self._changed:
            return LoopReport(
                frames=self._frames,
                answered=self._answered,
                dropped=self._dropped,
                missed=None if self._deadline_s is None else self._missed,
                idle=self._idle,
                skipped=self._skipped,
                hangs=None if self._watchdog is None else self._watchdog.hangs,
                seconds=0.0 if self._started_s is None else end - self._started_s,
                latency=self._latency.summary(),
            )

    def _failure(self) -> BaseException | None:
        return self._error or (self._watchdog.error if self._watchdog else None)

    def _read(self, source: Iterable[Mapping[str, Any] | Frame]) -> None:
        """Push all frames of a source; runs in a thread."""
        try:
            for frame in source:
                if self._stopping:
                    break
                if isinstance(frame, Frame):
                    self.push(frame.feeds, frame.captured_s)
                else:
                    self.push(frame)
            if (close := getattr(source, "close", None)) is not None:
                close()
        except BaseException as error:  # raised by `run`
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _answer_all(self) -> None:
        turn = self._clock.now()
        while (frame := self._next(turn)) is not None or not self._over():
            if frame is None:
                self._idle += 1
            else:
                self._answer(frame)
            if self._period_s is not None:
                passed = int(max(0.0, self._clock.now() - turn) / self._period_s)
                self._skipped += passed
                turn += (passed + 1) * self._period_s

    def _over(self) -> bool:
        return self._stopping or self._failure() is not None or (self._ended and self._slot is None)

    def _next(self, turn: float) -> Frame | None:
        """The newest frame; at a fixed rate, None where a turn has none, else none only at the end."""
        with self._changed:
            while not self._over():
                left = turn - self._clock.now() if self._period_s else None
                if self._slot is not None if left is None else left <= 0:
                    break
                self._clock.wait(self._changed, left)
            if self._stopping or self._failure() is not None:
                return None
            frame, self._slot = self._slot, None
            return frame

    def _answer(self, frame: Frame) -> None:
        if self._watchdog:
            self._watchdog.begin(frame.index)
        try:
            outputs = self._session.run(frame.feeds)
        finally:
            if self._watchdog:
                self._watchdog.end()
        latency = self._clock.now() - frame.captured_s
        with self._changed:
            self._answered += 1
            self._missed += self._deadline_s is not None and latency > self._deadline_s
            self._latency.add(latency)
        self._handler(outputs, frame)
