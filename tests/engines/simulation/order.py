"""Order of work on the SIMULATED device: what happens before what, by vector clocks; races are errors.

Two pieces of work are ordered by their stream, by an event that one stream recorded and the other waits for, or by a
host that waited for the first before it enqueued the second. Unordered ones may run at the same time on a real device:
if both touch a byte and one writes it, that is a race, whether or not it happens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from engines.simulation.heap import SimulationError

Clock = dict[int, int]


@dataclass(frozen=True)
class Access:
    """Bytes that a piece of work reads or writes."""

    start: int
    stop: int
    write: bool


@dataclass(frozen=True, eq=False)
class Work:
    """Something on a stream. `label` is empty for what is not recorded."""

    run: Callable[[], object]
    accesses: tuple[Access, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Placed:
    """A piece of work with its place in the order."""

    stream: int
    tick: int
    work: Work
    known: Clock

    def before(self, other: Placed) -> bool:
        """Whether this has finished when the other begins."""
        return other.known.get(self.stream, 0) >= self.tick


@dataclass
class Order:
    """Clocks of streams, events and the host."""

    labelled: list[Placed] = field(default_factory=list)
    _streams: dict[int, Clock] = field(default_factory=lambda: defaultdict(dict))
    _events: dict[int, Clock] = field(default_factory=dict)
    _host: Clock = field(default_factory=dict)
    _unfinished: list[Placed] = field(default_factory=list)

    def place(self, stream: int, work: Work) -> None:
        """Put work at the end of a stream. Raises SimulationError for a race with earlier work."""
        clock = self._streams[stream]
        _merge(clock, self._host)
        clock[stream] = clock.get(stream, 0) + 1
        placed = Placed(stream, clock[stream], work, dict(clock))
        self._unfinished = [e for e in self._unfinished if self._host.get(e.stream, 0) < e.tick]
        for earlier in self._unfinished:
            if not earlier.before(placed) and _conflict(earlier.work, work):
                raise SimulationError(f"race: {work} on stream {stream} with {earlier.work} on {earlier.stream}")
        if work.accesses:
            self._unfinished.append(placed)
        if work.label:
            self.labelled.append(placed)

    def record(self, event: int, stream: int) -> None:
        """An event marks what is on a stream."""
        self._events[event] = dict(self._streams[stream])

    def wait(self, stream: int, event: int) -> None:
        """Later work of a stream comes after an event."""
        _merge(self._streams[stream], self._events.get(event, {}))

    def finish(self, stream: int) -> None:
        """The host waited for a stream."""
        _merge(self._host, self._streams[stream])

    def finish_event(self, event: int) -> None:
        """The host waited for an event."""
        _merge(self._host, self._events.get(event, {}))

    def concurrent(self) -> set[frozenset[int]]:
        """Pairs of streams with labelled work that may run at the same time."""
        return {
            frozenset((one.stream, other.stream))
            for index, one in enumerate(self.labelled)
            for other in self.labelled[:index]
            if not one.before(other) and not other.before(one)
        }


def _merge(clock: Clock, other: Clock) -> None:
    for stream, tick in other.items():
        clock[stream] = max(tick, clock.get(stream, 0))


def _conflict(one: Work, other: Work) -> bool:
    return any(
        a.start < b.stop and b.start < a.stop and (a.write or b.write) for a in one.accesses for b in other.accesses
    )
