"""Warm-up, closed and open loops, memory and energy: on clocks that the tests set, for no test may depend on speed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiver_runtime import UnavailableError
from perceiver_runtime.benchmark import energy, loops, memory
from perceiver_runtime.benchmark.energy import PowerMeter
from perceiver_runtime.benchmark.loops import closed_loop, elapsed, open_loop
from perceiver_runtime.benchmark.warmup import MAX_SECONDS, warm_up
from perceiver_runtime.telemetry import Sample


class Clock:
    """Seconds that pass only while something runs, sleeps, or looks at the clock (1 microsecond)."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(loops, "perf_counter", made)
    monkeypatch.setattr(loops.time, "sleep", made.sleep)
    return made


def lasting(clock: Clock, seconds: Callable[[int], float]) -> loops.Run:
    return lambda _caller, number: clock.sleep(seconds(number))


def test_warm_up_ends_when_two_windows_agree() -> None:
    clock, times = Clock(), iter([3.0, 2.0, 1.5, 1.2, 1.1] + [1.0] * 5 + [1.02] * 5)
    assert vars(warm_up(lambda: clock.sleep(next(times)), clock=clock)) == {"runs": 15, "stable": True}
    short = Clock()
    assert warm_up(lambda: short.sleep(0.001), clock=short).runs == pytest.approx(200, abs=4)  # two windows of 0.1 s


def test_warm_up_that_never_becomes_stable_is_bounded() -> None:
    clock, number = Clock(), iter(range(10**6))
    found = warm_up(lambda: clock.sleep(1.0 if next(number) // 5 % 2 else 1.2), clock=clock)
    assert found.stable is False
    assert MAX_SECONDS <= clock.now <= MAX_SECONDS + 1.3
    slow = Clock()
    assert vars(warm_up(lambda: slow.sleep(100), clock=slow)) == {"runs": 1, "stable": False}


def test_warm_up_of_a_given_number() -> None:
    ran: list[int] = []
    assert vars(warm_up(lambda: ran.append(1), 3)) == {"runs": 3, "stable": None}
    assert len(ran) == 3


@pytest.mark.parametrize(("iterations", "duration", "runs"), [(5, 0.0, 5), (1, 1.0, 10), (20, 1.0, 20)])
def test_a_closed_loop_has_enough_runs_and_lasts_long_enough(
    clock: Clock, iterations: int, duration: float, runs: int
) -> None:
    times = closed_loop(lasting(clock, lambda _: 0.1), iterations, duration)
    assert len(times) == runs
    assert [each.milliseconds for each in times] == pytest.approx([100] * runs, abs=0.1)
    assert elapsed(times) == pytest.approx(0.1 * runs, rel=0.01)


def test_a_closed_loop_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "MAX_RUNS", 7)
    assert len(closed_loop(lasting(clock, lambda _: 0.1), 1, 100.0)) == 7


def test_several_callers_run_at_the_same_time() -> None:
    met = threading.Barrier(3, timeout=30)
    times = closed_loop(lambda _caller, _number: met.wait(), 9, callers=3)
    assert [each.number for each in times] == list(range(9))
    assert {each.caller for each in times} == {0, 1, 2}


def test_an_error_of_a_caller_ends_the_others() -> None:
    def run(caller: int, number: int) -> None:
        if number == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        closed_loop(run, 1, 3600.0, callers=2)


def test_a_stall_delays_all_requests_behind_it(clock: Clock) -> None:
    """One call of 1 s at 10 requests per second: a closed loop would see one slow call of 30."""
    loop = open_loop(lasting(clock, lambda number: 1.0 if number == 10 else 0.01), 10.0, 30, 1)
    found = loop.report()
    assert (found.requests, found.unanswered, found.sustained) == (30, 0, True)
    assert found.achieved == pytest.approx(10, rel=0.02)
    assert found.latency.max == pytest.approx(1000, rel=0.01)
    assert sorted(found.latency.samples)[-9] > 150  # the others queued behind it
    assert found.latency.p50 == pytest.approx(10, rel=0.05)
    assert found.queue_depth.max == 9
    assert found.waiting.max == pytest.approx(900, rel=0.01)


def test_a_rate_that_is_not_sustained(clock: Clock) -> None:
    found = open_loop(lasting(clock, lambda _: 0.15), 10.0, 60, 1).report()
    assert not found.sustained
    assert found.achieved == pytest.approx(1 / 0.15, rel=0.01)
    assert found.unanswered == 0  # drained within as long again
    assert found.latency.max == pytest.approx(60 * 150 - 59 * 100, rel=0.02)


def test_requests_that_are_given_up_count_as_long_as_they_waited(clock: Clock) -> None:
    found = open_loop(lasting(clock, lambda _: 1.0), 10.0, 50, 1).report()
    assert not found.sustained
    assert found.unanswered == 50 - 10
    assert len(found.latency.samples) == 50
    assert found.latency.max >= 5000
    assert found.queue_depth.max == 44


def test_peak_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        def used_bytes(self) -> int:
            return 5

    class Session:
        device = Device()

    monkeypatch.setattr(memory, "SELF", tmp_path)
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n")
    found = memory.MemoryMeter().read(Session())  # type: ignore[arg-type]
    assert (found.peak_rss, found.covers, found.device) == (2 << 20, "measurement", 5)
    assert (tmp_path / "clear_refs").read_text() == "5"
    monkeypatch.setattr(memory, "SELF", tmp_path / "none")
    Session.device = None  # type: ignore[assignment]
    found = memory.MemoryMeter().read(Session())  # type: ignore[arg-type]
    assert (found.peak_rss, found.covers, found.device) == (None, "process", None)


class Meter:
    """A counter of energy: 5 W, and 20 W once something runs."""

    description = "a counter"
    power_mode: str | None = None

    def __init__(self, measures: bool = True) -> None:
        self.watts, self._time, self._joules, self._measures = 5.0, 0.0, 0.0, measures

    def sample(self) -> Sample:
        self._time += 1.0
        self._joules += self.watts
        if not self._measures:
            return Sample(self._time)
        return Sample(self._time, total_power=self.watts, energy=self._joules, temperature={"cpu": 60.0})


def test_energy_is_gross_and_net_of_idle() -> None:
    source = Meter()
    meter = PowerMeter(source, seconds=0.0)
    source.watts = 20.0
    with meter.recording():
        pass
    found = meter.energy(10)
    assert (found.idle_watts, found.mean_watts, found.peak_watts) == (5.0, 20.0, 20.0)
    assert found.joules_per_inference == pytest.approx(20 * found.seconds / 10)
    assert found.net_joules_per_inference == pytest.approx(15 * found.seconds / 10)
    assert (found.peak_temperature, found.throttled, found.source) == (60.0, (), "a counter")


def test_a_device_without_a_power_sensor() -> None:
    with pytest.raises(UnavailableError, match="expected a counter to measure power"):
        PowerMeter(Meter(measures=False), seconds=0.0)


def test_a_processor_without_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(unit: str) -> None:
        raise UnavailableError(unit)

    class Session:
        backend = "openvino"

    monkeypatch.setattr(energy, "open_source", refused)
    with pytest.raises(UnavailableError, match="processor"):
        PowerMeter.of(Session())  # type: ignore[arg-type]
