"""The loop on simulated time: what is answered, dropped, late and how old it is; and what ends it."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from loop.simulated import SimulatedClock, SimulatedModel

from perceiver_runtime.errors import UsageError
from perceiver_runtime.loop import Frame, Hang, Loop, LoopReport, paced
from perceiver_runtime.loop.histogram import LatencyHistogram
from perceiver_runtime.loop.watchdog import Watchdog

PATIENCE_S = 60
"""Ends a test whose threads wait for each other; no result depends on it."""


class Echo:
    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return dict(feeds)


def _simulated(model_s: float, frames: int = 900, **options: Any) -> tuple[LoopReport, list[int]]:
    """Frames at 30 per second, and the numbers of those that were answered."""
    clock, answered = SimulatedClock(30, frames), []
    loop = Loop(SimulatedModel(clock, model_s), lambda _, frame: answered.append(frame.index), clock=clock, **options)
    clock.loop = loop
    return loop.run(), answered


@pytest.mark.parametrize("model_s", [0.04, 0.1, 0.25, 1.7])
def test_a_model_slower_than_the_camera_answers_new_frames(model_s: float) -> None:
    report, answered = _simulated(model_s)
    assert report.latency is not None
    assert report.latency.max < 2 * model_s
    assert report.latency.count == report.answered == len(answered)
    assert answered == sorted(set(answered))
    waiting = report.frames - report.answered - report.dropped
    assert waiting in (0, 1)  # one in the slot when the loop was stopped
    assert report.answered == pytest.approx(30 / model_s, abs=2)
    assert (report.missed, report.hangs) == (None, None)


def test_a_model_faster_than_the_camera_answers_every_frame() -> None:
    report, answered = _simulated(0.01)
    assert answered == list(range(900))
    assert (report.dropped, report.answered) == (0, 900)
    assert report.latency is not None
    assert report.latency.p99 == pytest.approx(0.01, rel=0.01)


def test_answers_after_the_deadline_are_counted() -> None:
    late, _ = _simulated(0.1, deadline_s=0.05)
    assert late.missed == late.answered
    assert _simulated(0.01, deadline_s=0.05)[0].missed == 0


def test_a_rate_below_the_cameras_takes_the_newest_frame_at_each_turn() -> None:
    report, answered = _simulated(0.01, rate_hz=10)
    assert set(np.diff(answered).tolist()) <= {2, 3, 4}
    assert report.answered == pytest.approx(300, abs=1)
    assert report.latency is not None
    assert report.latency.max <= 1 / 30 + 0.01 + 1e-9
    assert (report.idle, report.skipped, report.missed) == (1, 0, 0)  # no frame had arrived at the first turn


def test_a_rate_above_the_cameras_has_idle_turns() -> None:
    report, answered = _simulated(0.001, rate_hz=60)
    assert answered == list(range(900))
    assert report.idle == pytest.approx(900, abs=2)


def test_turns_that_pass_during_a_run_are_skipped_and_never_made_up_for() -> None:
    report, _ = _simulated(0.25, rate_hz=10)
    assert report.answered == pytest.approx(100, abs=1)
    assert report.skipped == pytest.approx(200, abs=2)
    assert report.missed == report.answered


def test_memory_is_flat_over_100_000_frames() -> None:
    sizes: list[int] = []

    class Fed:
        """Gives itself the next frames, every other time two, and looks at the memory now and then."""

        def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
            number = int(feeds["frame"][0])
            if number >= 20_000 * (len(sizes) + 1):
                gc.collect()
                sizes.append(sys.getallocatedblocks())
            for index in range(1 + number % 2):
                loop.push({"frame": np.full(1000, number + 1 + index, np.float32)})
            if number >= 100_000:
                loop.stop()
            return {"answer": feeds["frame"][:1].copy()}

    loop = Loop(Fed(), lambda outputs, frame: None, deadline_s=1e9)
    loop.push({"frame": np.zeros(1000, np.float32)})
    report = loop.run()
    assert report.frames >= 100_000
    assert report.dropped > 10_000
    assert len(sizes) == 5
    assert max(sizes) - min(sizes) < 1000, sizes  # blocks of Python's allocator, which every object and array takes


def test_a_source_is_read_in_a_thread_and_closed_there() -> None:
    closed: list[str] = []
    taken = threading.Semaphore(0)

    def source() -> Iterator[Mapping[str, Any] | Frame]:
        try:
            yield {"frame": 0}
            taken.acquire(timeout=PATIENCE_S)
            yield Frame({"frame": 1}, captured_s=-1e12)
        finally:
            closed.append(threading.current_thread().name)

    answers: list[int] = []

    def handler(outputs: dict[str, Any], frame: Frame) -> None:
        answers.append(outputs["frame"])
        taken.release()

    report = Loop(Echo(), handler, deadline_s=1e9).run(source())
    assert answers == [0, 1]
    assert closed == ["perceiver-source"]
    assert (report.frames, report.answered, report.dropped, report.missed) == (2, 2, 0, 1)


def _endless() -> Iterator[dict[str, Any]]:
    while True:
        yield {}


def test_the_handler_stops_an_endless_source() -> None:
    loop = Loop(Echo(), lambda outputs, frame: loop.stop())
    assert loop.run(_endless()).answered == 1
    assert not [each for each in threading.enumerate() if each.name == "perceiver-source"]
    with pytest.raises(UsageError, match="runs once"):
        loop.run()


SIGNALLED = """
import signal
from perceiver_runtime.loop import Loop

class Echo:
    def run(self, feeds):
        return dict(feeds)

loop = Loop(Echo(), lambda outputs, frame: signal.raise_signal(signal.SIGTERM))
signal.signal(signal.SIGTERM, lambda number, stack: loop.stop())
loop.push({})
print(loop.run().answered)
"""


def test_a_signal_stops_a_loop_that_waits() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_errors_of_the_source_are_raised_where_the_user_waits() -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield {}
        raise OSError("camera is gone")

    with pytest.raises(OSError, match="camera is gone"):
        Loop(Echo(), lambda outputs, frame: None).run(source())


def test_errors_of_the_handler_and_of_the_session_are_raised() -> None:
    def broken(*arguments: object) -> None:
        raise ValueError("broken")

    class Broken:
        run = broken

    for loop in (Loop(Echo(), broken), Loop(Broken(), lambda outputs, frame: None)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="broken"):
            loop.run(_endless())
        assert loop.report().frames >= 1


class Hangs:
    """Returns once it is told that it hangs."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        assert self.told.wait(PATIENCE_S)
        return {}


def test_the_watchdog_calls_once_per_hang_from_its_own_thread() -> None:
    session, calls = Hangs(), []

    def on_hang(hang: Hang) -> None:
        calls.append((hang, threading.current_thread().name))
        session.told.set()

    report = Loop(session, lambda outputs, frame: None, limit_s=0.01, on_hang=on_hang).run([{}])
    assert calls == [(Hang(0, 0.01), "perceiver-watchdog")]
    assert report.hangs == 1


def test_a_hang_that_lasts_is_one_and_the_next_run_has_its_own() -> None:
    told = threading.Semaphore(0)

    def on_hang(hang: Hang) -> None:
        calls.append(hang.frame)
        told.release()

    calls: list[int] = []
    with Watchdog(0.01, on_hang) as watchdog:
        for frame in (3, 4):
            watchdog.begin(frame)
            assert told.acquire(timeout=PATIENCE_S)
            assert not told.acquire(timeout=0.05)
            watchdog.end()
    assert calls == [3, 4]
    assert watchdog.hangs == 2


def test_errors_of_the_watchdogs_callback_are_raised() -> None:
    session = Hangs()

    def on_hang(hang: Hang) -> None:
        session.told.set()
        raise RuntimeError("no one to tell")

    with pytest.raises(RuntimeError, match="no one to tell"):
        Loop(session, lambda outputs, frame: None, limit_s=0.01, on_hang=on_hang).run([{}])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rate_hz": 0}, "rate_hz"),
        ({"deadline_s": -1.0}, "deadline_s"),
        ({"limit_s": math.nan, "on_hang": print}, "limit_s"),
        ({"limit_s": 1.0}, "on_hang"),
        ({"on_hang": print}, "limit_s"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Loop(Echo(), print, **options)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="captured_s"):
        Loop(Echo(), print).push({}, math.nan)


def test_paced_frames_are_never_early() -> None:
    class Jumps(SimulatedClock):
        def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
            self.time += timeout_s or 0

    clock = Jumps(1, 1)
    times = [clock.now() for _ in paced(range(5), 10, clock)]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    with pytest.raises(UsageError, match="rate_hz"):
        next(paced([1], 0))


def test_the_histogram_is_exact_to_one_per_cent() -> None:
    samples = np.random.default_rng(0).lognormal(-4, 1.5, 20_000)
    histogram = LatencyHistogram()
    assert histogram.summary() is None
    for sample in samples:
        histogram.add(float(sample))
    found = histogram.summary()
    assert found is not None
    expected = np.percentile(samples, (50, 95, 99), method="inverted_cdf")
    assert (found.p50, found.p95, found.p99) == pytest.approx(expected, rel=0.01)
    assert (found.mean, found.max, found.count) == pytest.approx((samples.mean(), samples.max(), 20_000))
    for odd in (0.0, -1.0, 1e9):
        histogram.add(odd)
