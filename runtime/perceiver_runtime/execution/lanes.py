"""Lanes: devices on which the runs of a session execute, each with the execution plans for its sizes.

A lane is used by one run at a time. On a processor all lanes are the same memory; with TensorRT each has a stream,
execution contexts, scratch memory and buffers, and all share the loaded components with their weights. Where a backend
has one stream, lanes have buffers of their own and take turns.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Any

from perceiver_runtime.backends.backend import (
    Backend,
    Device,
    Executable,
    OneStreamBackend,
    Priority,
    StreamedBackend,
)
from perceiver_runtime.errors import UnavailableError, UsageError
from perceiver_runtime.execution.activity import QUEUE, Observe
from perceiver_runtime.execution.feeds import check_sizes
from perceiver_runtime.execution.generate import BoundStep
from perceiver_runtime.execution.plan import ExecutionPlan
from perceiver_runtime.execution.subpipeline import Subpipeline
from perceiver_runtime.tensors import Array, is_whole

MAX_IDLE_SIZES = 8
"""Sizes that a lane keeps an execution plan for."""
MAX_CALLERS = 64

PlanKey = tuple[Subpipeline, tuple[tuple[str, int], ...], tuple[str, ...]]


class Lane:
    """A device and its execution plans, the last used one at the end."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.plans: OrderedDict[PlanKey, ExecutionPlan] = OrderedDict()
        self.loops: OrderedDict[tuple[str, int], BoundStep] = OrderedDict()
        """Steps of generations, by name and number of rows."""

    def keep(self, key: tuple[str, int], loop: BoundStep) -> None:
        """Keep a step for the next generation of as many rows."""
        self.loops[key] = loop
        while len(self.loops) > MAX_IDLE_SIZES:
            self.loops.popitem(last=False)


class Lanes:
    """Lanes of one session: up to `limit` for runs on NumPy arrays, and as many for open callers."""

    def __init__(
        self,
        backend: Backend,
        executables: dict[str, Executable],
        callers: int | None,
        priority: Priority,
        device_memory: int | None,
    ) -> None:
        self.limit = backend.concurrency if callers is None else callers
        self.priority = priority
        self._backend = backend
        self._streamed = _streamed(backend, callers, priority, device_memory)
        self._executables = executables
        self.turn: AbstractContextManager[Any] = (
            backend.turn if isinstance(backend, OneStreamBackend) else nullcontext()
        )
        self._turns = threading.BoundedSemaphore(self.limit)
        self._lock = threading.Lock()
        self._idle: list[Lane] = []
        self._opened: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._reserved = 0
        self.closed = False
        self._process = os.getpid()
        _OPEN.add(self)

    def check_open(self) -> None:
        """Raise UsageError after `close`, and in a forked process: threads and the GPU do not follow a fork."""
        if self.closed:
            raise UsageError("the session is closed; open it again")
        if os.getpid() != self._process:
            raise UsageError(
                "this session was opened by the process that forked this one; open one here, after the fork"
            )

    @property
    def streamed(self) -> StreamedBackend | None:
        """The backend, if its lanes are streams."""
        return self._streamed

    def run(
        self, subpipeline: Subpipeline, feeds: Mapping[str, Array], sizes: Mapping[str, int], observe: Observe | None
    ) -> dict[str, Array]:
        """Run on the next free lane. This is on the path of every run."""
        key = plan_key(subpipeline, feeds, sizes)
        asked = perf_counter() if observe is not None else 0.0
        with self._turns, self.turn:
            if observe is not None:
                observe(QUEUE, asked, perf_counter())
            lane = self._take(key)
            try:
                plan = lane.plans.pop(key, None) or self.plan(lane, subpipeline, feeds, sizes)
                results = plan.run(feeds, observe)
                lane.plans[key] = plan  # not after an error, which may have come from its state
            finally:
                self._give(lane)
        return results

    def plan(
        self, lane: Lane, subpipeline: Subpipeline, feeds: Mapping[str, Any], sizes: Mapping[str, int]
    ) -> ExecutionPlan:
        """A new plan for these sizes; beyond `MAX_IDLE_SIZES` sizes, the lane's oldest plan is released before.

        If the device has no memory for it, all that the lane keeps for other sizes is released first.
        """
        executables = self._executables  # before the check: another thread may close the session
        self.check_open()
        filled = check_sizes(subpipeline, feeds, sizes)
        while len(lane.plans) >= MAX_IDLE_SIZES:
            lane.plans.popitem(last=False)
        try:
            return self._compiled(lane, subpipeline, executables, sizes, filled)
        except UnavailableError:
            if not lane.plans and not lane.loops:
                raise
        lane.plans.clear()
        lane.loops.clear()
        return self._compiled(lane, subpipeline, executables, sizes, filled)

    def _compiled(
        self,
        lane: Lane,
        subpipeline: Subpipeline,
        executables: Mapping[str, Executable],
        sizes: Mapping[str, int],
        filled: frozenset[str],
    ) -> ExecutionPlan:
        plan = ExecutionPlan(subpipeline, executables, lane.device, sizes, filled)
        if self._streamed is not None:
            plan.upload_constants()
        return plan

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """A lane for several calls in a row."""
        if self._streamed is None:
            yield Lane(self._backend.device)
            return
        with self._turns, self.turn:
            lane = self._take()
            try:
                yield lane
            finally:
                self._give(lane)

    def reserve(self, priority: Priority | None) -> Lane:
        """A lane for one caller, until `release`. Raises UsageError if `limit` callers are open."""
        _streamed(self._backend, None, priority or "normal", None)
        with self._lock:
            if self._reserved >= self.limit:
                raise UsageError(
                    f"callers: {self._reserved} are open, as many as this session allows; close one, or open the "
                    f"session with callers={self._reserved + 1}"
                )
            self._reserved += 1
        try:
            return self._open(priority or self.priority)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Count a caller as closed; its lane is released with the last reference."""
        with self._lock:
            self._reserved -= 1

    def close(self) -> None:
        """Release all idle lanes; nothing in a forked process, where `_keep` says why."""
        self.closed = True
        if os.getpid() != self._process:
            return
        self._executables = {}
        with self._lock:
            idle, self._idle = self._idle, []
        del idle  # not under the lock: it releases what the device holds

    def release_all(self) -> None:
        """At exit: close, and release what open callers and the session itself hold."""
        executables = self._executables
        self.close()
        if os.getpid() == self._process:
            for lane in tuple(self._opened):
                lane.plans.clear()
                lane.loops.clear()
            executables.clear()

    def _open(self, priority: Priority) -> Lane:
        lane = Lane(self._backend.device if self._streamed is None else self._streamed.open_device(priority))
        self._opened.add(lane)
        return lane

    def _take(self, key: PlanKey | None = None) -> Lane:
        """An idle lane, one that has the plan if there is any; else a new one."""
        with self._lock:
            for index in reversed(range(len(self._idle))):
                if key in self._idle[index].plans:
                    return self._idle.pop(index)
            if self._idle:
                return self._idle.pop()
        return self._open(self.priority)

    def _give(self, lane: Lane) -> None:
        """Keep a lane for the next run, unless the session was closed meanwhile."""
        with self._lock:
            if not self.closed:
                self._idle.append(lane)


_OPEN: weakref.WeakSet[Lanes] = weakref.WeakSet()


def _keep() -> None:
    """In a forked process: keep all that is open for ever; its release would wait for threads that are not here."""
    for lanes in _OPEN:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(lanes))


os.register_at_fork(after_in_child=_keep)


@atexit.register
def _release() -> None:
    """While CUDA is there: ONNX Runtime and TensorRT would else release what they have after it."""
    for lanes in tuple(_OPEN):
        if lanes.streamed is not None:
            lanes.release_all()


def plan_key(subpipeline: Subpipeline, feeds: Mapping[str, Any], sizes: Mapping[str, int]) -> PlanKey:
    """What a plan is compiled for: the sizes, and the names of given inputs if some are omitted."""
    return subpipeline, tuple(sizes.items()), tuple(feeds) if len(feeds) < len(subpipeline.specs) else ()


def _streamed(
    backend: Backend, callers: int | None, priority: str, device_memory: int | None
) -> StreamedBackend | None:
    """The backend if its runs have streams. Raises UsageError for options that are out of range, or need streams."""
    if callers is not None and (not is_whole(callers) or not 1 <= callers <= MAX_CALLERS):
        raise UsageError(f"callers: expected 1 to {MAX_CALLERS}, got {callers!r}")
    if priority not in ("normal", "high"):
        raise UsageError(f"priority: expected normal or high, got {priority!r}")
    if device_memory is not None and (not is_whole(device_memory) or device_memory < 1):
        raise UsageError(f"device_memory: expected a number of bytes, at least 1, got {device_memory!r}")
    streamed = backend if isinstance(backend, StreamedBackend) else None
    if priority == "high" and (streamed is None or isinstance(streamed, OneStreamBackend)):
        raise UsageError(
            "priority='high': expected a TensorRT backend, whose callers have streams of their own, got "
            f"{backend.name}; leave it out"
        )
    if device_memory is not None:
        if streamed is None:
            raise UsageError(
                f"device_memory: expected a TensorRT backend or onnxruntime-cuda, got {backend.name}; leave it out"
            )
        streamed.limit_memory(device_memory)
    return streamed
