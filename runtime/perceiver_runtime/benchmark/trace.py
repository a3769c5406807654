"""Chrome traces of runs (Trace Event Format), which Perfetto and chrome://tracing open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from perceiver_runtime.benchmark.loops import OpenLoop, Times
from perceiver_runtime.execution.activity import Activity
from perceiver_runtime.execution.session import Feeds, Session
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.outputs import replacing

MAX_TRACED = 100
"""Runs of a series that are traced: a viewer shows these well, and a file of more would be large."""
Observed = tuple[Activity, float, float]


class Trace:
    """Events of several series of runs, each a process of the trace with a thread for each caller."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._processes: dict[str, int] = {}
        self._begin = perf_counter()

    def series(self, name: str) -> TracedSeries:
        """A new series."""
        process = self._processes.setdefault(name, len(self._processes) + 1)
        self._add("M", process, 0, name="process_name", args={"name": name})
        return TracedSeries(self, process)

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write the file; `about` goes into its metadata."""
        content = {"traceEvents": self._events, "displayTimeUnit": "ms", "otherData": schema.encode(about)}
        with replacing(path) as partial:
            partial.write_text(strict_json.dumps(content, indent=None) + "\n", encoding="utf-8")

    def _add(self, phase: str, process: int, thread: int, **fields: Any) -> None:
        self._events.append({"ph": phase, "pid": process, "tid": thread, **fields})

    def microseconds(self, moment: float) -> float:
        """A moment of `perf_counter` on the trace's clock."""
        return round((moment - self._begin) * 1e6, 3)


class TracedSeries:
    """Runs of one series: `run` observes the first `MAX_TRACED`, `close` adds them to the trace."""

    def __init__(self, trace: Trace, process: int) -> None:
        self._trace, self._process = trace, process
        self._observed: defaultdict[int, list[Observed]] = defaultdict(list)

    def run(self, session: Session, feeds: Feeds, number: int) -> None:
        """Run once, observed if it is one of the first."""
        if number >= MAX_TRACED:
            session.run(feeds)
            return
        observed = self._observed[number]
        session.run(feeds, observe=lambda *each: observed.append(each))

    def add(self, number: int, observed: Sequence[Observed]) -> None:
        """Keep what was observed elsewhere of a run."""
        if number < MAX_TRACED:
            self._observed[number] = list(observed)

    def close(self, times: Sequence[Times], loop: OpenLoop | None = None) -> None:
        """Add the runs to the trace: one slice each, around those of its activities."""
        for caller in sorted({each.caller for each in times}):
            self._event("M", caller, name="thread_name", args={"name": f"caller {caller + 1}"})
        for each in times[:MAX_TRACED]:
            self._slice("run", f"run {each.number}", each.caller, each.start, each.end, {"run": each.number})
            for activity, start, end in self._observed[each.number]:
                place = {key: value for key in ("step", "call") if (value := getattr(activity, key)) is not None}
                name = activity.name if activity.kind in ("component", "queue") else f"{activity.kind}: {activity.name}"
                self._slice(activity.kind, name, each.caller, start, end, place)
            if loop is not None:
                self._waiting(each, loop)

    def _waiting(self, each: Times, loop: OpenLoop) -> None:
        """The request's time in the queue, which overlaps that of others, and the depth of the queue."""
        for phase, moment in (("b", loop.arrival(each.number)), ("e", each.start)):
            at = self._trace.microseconds(moment)
            self._event(phase, each.caller, ts=at, name="queue", cat="queue", id=each.number)
        at = self._trace.microseconds(each.start)
        self._event("C", 0, ts=at, name="queue depth", args={"requests": loop.depth(each)})

    def _slice(self, category: str, name: str, caller: int, start: float, end: float, args: Mapping[str, int]) -> None:
        begin, stop = self._trace.microseconds(start), self._trace.microseconds(end)
        self._event("X", caller, ts=begin, dur=round(stop - begin, 3), name=name, cat=category, args=args)

    def _event(self, phase: str, caller: int, **fields: Any) -> None:
        self._trace._add(phase, self._process, caller + 1, **fields)
