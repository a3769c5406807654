# ruff: noqa: N801, N802, N815  (the real package's names)
"""SIMULATION of `cuda.bindings.runtime` on host memory. No GPU is involved, and no timing of it means anything.

Work given to a stream runs only when something waits for it, as late as CUDA allows: code that forgets to wait, or
reuses staging memory too early, sees wrong data here every time. Names are held against the real package by a test.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from engines.simulation.heap import Heap, SimulationError
from engines.simulation.order import Access, Order, Work


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


class cudaMemoryType(IntEnum):
    cudaMemoryTypeUnregistered = 0
    cudaMemoryTypeHost = 1
    cudaMemoryTypeDevice = 2
    cudaMemoryTypeManaged = 3


class cudaDeviceAttr(IntEnum):
    cudaDevAttrIntegrated = 18
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


class cudaStreamCaptureStatus(IntEnum):
    cudaStreamCaptureStatusNone = 0
    cudaStreamCaptureStatusActive = 1


OK = cudaError_t.cudaSuccess
REFUSED = cudaError_t.cudaErrorStreamCaptureUnsupported
SIDES: dict[int, tuple[Any, Any]] = {
    1: ("device", "host"),
    2: ("host", "device"),
    3: ("device", "device"),
    4: (None, None),
}
LOWEST, HIGHEST = 0, -5


def one_at_a_time(cls: type) -> type:
    """Calls of several threads one after the other."""

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def locked(self: SimulatedCuda, *arguments: Any) -> Any:
            with self._lock:
                return call(self, *arguments)

        return locked

    for name, value in list(vars(cls).items()):
        if callable(value) and not isinstance(value, type) and (name.startswith("cuda") or name == "enqueue"):
            setattr(cls, name, guarded(value))
    return cls


@one_at_a_time
class SimulatedCuda:
    """One device with one heap; an instance stands in for the module.

    `lost` makes it fail for good, `order` has the order of work, `host_copies` counts copies between host and device,
    `priorities` those of streams.
    """

    cudaError_t, cudaMemcpyKind, cudaDeviceAttr = cudaError_t, cudaMemcpyKind, cudaDeviceAttr
    cudaStreamCaptureMode, cudaMemoryType = cudaStreamCaptureMode, cudaMemoryType
    cudaStreamCaptureStatus = cudaStreamCaptureStatus
    cudaStreamNonBlocking, cudaHostAllocDefault, cudaEventDisableTiming = 1, 0, 2
    cudaHostAllocMapped = 2

    def __init__(self, compute_capability: str = "8.7", capacity: int = 1 << 30) -> None:
        self.heap = Heap(capacity)
        self.order = Order()
        self.launches = self.host_copies = 0
        self.integrated = True
        self.lost = False
        self.priorities: dict[int, int] = {}
        self._lock = threading.RLock()
        self._capability = compute_capability
        self._streams: dict[int, list[Work]] = {1: [], 2: []}  # the default streams
        self._events: dict[int, tuple[int, Work] | None] = {}
        self._captures: dict[int, list[Work]] = {}
        self._capturing: dict[int, int] = {}  # threads, by stream
        self._global: set[int] = set()  # streams whose capture concerns all threads
        self._apart: dict[int, int] = {}  # modes of threads
        self._graphs: dict[int, list[Work]] = {}
        self._next = 16

    # memory
    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if self._refused():
            return REFUSED, None
        address = self.heap.allocate("device", size)
        return (OK, address) if address is not None else (cudaError_t.cudaErrorMemoryAllocation, None)

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:
        if self._beside():
            raise SimulationError("memory is not released while another thread captures")
        self._drain()
        self.heap.free("device", devPtr)
        return (OK,)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        kind: Any = "mapped" if flags & self.cudaHostAllocMapped else "host"
        return (REFUSED, None) if self._refused() else (OK, self.heap.allocate(kind, size))

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        if self._beside():
            raise SimulationError("memory is not released while another thread captures")
        self._drain()
        self.heap.free(self.heap.kind(ptr) or "host", ptr)
        return (OK,)

    def cudaHostGetDevicePointer(self, pHost: int, flags: int) -> tuple[Any, ...]:
        self.heap.check(pHost, 0, "mapped")
        return OK, pHost

    def cudaPointerGetAttributes(self, ptr: int) -> tuple[Any, ...]:
        types = {None: 0, "host": 1, "mapped": 1, "device": 2}
        return OK, SimpleNamespace(type=cudaMemoryType(types[self.heap.kind(ptr)]), device=0)

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return OK, self.heap.capacity - self.heap.in_use, self.heap.capacity

    # copies
    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: int, stream: int) -> tuple[Any, ...]:
        return self.cudaMemcpy2DAsync(dst, count, src, count, count, 1, kind, stream)

    def cudaMemcpy(self, dst: int, src: int, count: int, kind: int) -> tuple[Any, ...]:
        if self._refused():
            return (REFUSED,)
        _, source = SIDES[int(kind)]
        self.heap.check(src, count, source if source != "host" else None)
        self.host_copies += kind != cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self.enqueue(1, Work(lambda: ctypes.memmove(dst, src, count), (Access(src, src + count, False),)))
        return self.cudaStreamSynchronize(1)

    def cudaMemcpy2DAsync(
        self, dst: int, dpitch: int, src: int, spitch: int, width: int, height: int, kind: int, stream: int
    ) -> tuple[Any, ...]:
        if width > dpitch or width > spitch:
            raise SimulationError(f"pitch {min(dpitch, spitch)} below width {width}")
        to, source = SIDES[int(kind)]
        self.host_copies += "host" in (self.heap.kind(dst), self.heap.kind(src))
        written, read = dpitch * (height - 1) + width, spitch * (height - 1) + width

        def move() -> None:
            self.heap.check(dst, written, to)
            self.heap.check(src, read, source)
            for row in range(height):
                ctypes.memmove(dst + row * dpitch, src + row * spitch, width)

        ranges = (
            *(Access(dst + row * dpitch, dst + row * dpitch + width, True) for row in range(height)),
            *(Access(src + row * spitch, src + row * spitch + width, False) for row in range(height)),
        )
        self.enqueue(stream, Work(move, ranges))
        return (OK,)

    # streams and events
    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        self._streams[self._next] = []
        return OK, self._name()

    def cudaDeviceGetStreamPriorityRange(self) -> tuple[Any, ...]:
        return OK, LOWEST, HIGHEST

    def cudaStreamCreateWithPriority(self, flags: int, priority: int) -> tuple[Any, ...]:
        self.priorities[self._next] = priority
        return self.cudaStreamCreateWithFlags(flags)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any, ...]:
        if (recorded := self._events[event]) is not None:
            self.order.wait(stream, event)
            self.enqueue(stream, Work(lambda: self._run(recorded[0], until=recorded[1])))
        return (OK,)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        self._run(stream)
        del self._streams[stream]
        return (OK,)

    def cudaPeekAtLastError(self) -> tuple[Any, ...]:
        return (cudaError_t.cudaErrorIllegalAddress if self.lost else OK,)

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return self.cudaPeekAtLastError()

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        if self.lost:
            return self.cudaPeekAtLastError()
        if stream in self._captures:
            return (REFUSED,)
        self._run(stream)
        self.order.finish(stream)
        self.heap.check_zones()
        return (OK,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        self._events[self._next] = None
        return OK, self._name()

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        mark = Work(lambda: None)
        self._events[event] = (stream, mark)
        self.enqueue(stream, mark)
        self.order.record(event, stream)
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        if (recorded := self._events[event]) is not None:
            self._run(recorded[0], until=recorded[1])
            self.order.finish_event(event)
        return (OK,)

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        del self._events[event]
        return (OK,)

    # graphs
    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self._captures[stream] = []
        self._capturing[stream] = threading.get_ident()
        if mode == cudaStreamCaptureMode.cudaStreamCaptureModeGlobal:
            self._global.add(stream)
        return (OK,)

    def cudaThreadExchangeStreamCaptureMode(self, mode: int) -> tuple[Any, ...]:
        thread = threading.get_ident()
        before, self._apart[thread] = self._apart.get(thread, 0), int(mode)
        return OK, cudaStreamCaptureMode(before)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        self._graphs[self._next] = self._captures.pop(stream)
        del self._capturing[stream]
        self._global.discard(stream)
        return OK, self._name()

    def cudaStreamIsCapturing(self, stream: int) -> tuple[Any, ...]:
        return OK, cudaStreamCaptureStatus(int(stream in self._captures))

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        self._graphs[self._next] = self._graphs[graph]
        return OK, self._name()

    def cudaGraphLaunch(self, graphExec: int, stream: int) -> tuple[Any, ...]:
        self.launches += 1
        for work in self._graphs[graphExec]:
            self.enqueue(stream, work)
        return (OK,)

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        del self._graphs[graph]
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec: int) -> tuple[Any, ...]:
        del self._graphs[graphExec]
        return (OK,)

    # device
    def cudaGetDevice(self) -> tuple[Any, ...]:
        return OK, 0

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return OK, 1

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return OK, SimpleNamespace(name=b"Orin (simulated)")

    def cudaDeviceGetAttribute(self, attr: int, device: int) -> tuple[Any, ...]:
        if attr == cudaDeviceAttr.cudaDevAttrIntegrated:
            return OK, int(self.integrated)
        major, minor = self._capability.split(".")
        return OK, int(major if attr == cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor else minor)

    def enqueue(self, stream: int, work: Work) -> None:
        """Put work on a stream, or into the graph that is being captured from it."""
        if stream in self._captures:
            self._captures[stream].append(work)
            return
        self.order.place(stream, work)
        self._streams[stream].append(work)

    @property
    def pending(self) -> int:
        """Pieces of work that have not run yet."""
        return sum(map(len, self._streams.values()))

    def _run(self, stream: int, until: Work | None = None) -> None:
        queue = self._streams[stream]
        if until is not None and until not in queue:
            return
        while queue:
            work = queue.pop(0)
            work.run()
            if work is until:
                return

    def _drain(self) -> None:
        for stream in list(self._streams):
            self._run(stream)
            self.order.finish(stream)

    def _refused(self) -> bool:
        return threading.get_ident() in self._capturing.values() or self._beside()

    def _beside(self) -> bool:
        """Whether the capture of another thread refuses this one's calls."""
        thread = threading.get_ident()
        captures = {self._capturing[stream] for stream in self._global} - {thread}
        return bool(captures) and self._apart.get(thread, 0) == cudaStreamCaptureMode.cudaStreamCaptureModeGlobal

    def _name(self) -> int:
        self._next += 1
        return self._next - 1
