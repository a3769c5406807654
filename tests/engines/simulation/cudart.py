# ruff: noqa: N801, N802, N815  (the real package's names)
"""SIMULATION of `cuda.bindings.runtime` on host memory. No GPU is involved, and no timing of it means anything.

Work given to a stream runs only when something waits for it, as late as CUDA allows: code that forgets to wait, or
reuses staging memory too early, sees wrong data here every time. Names are held against the real package by a test.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from engines.simulation.heap import Heap, SimulationError


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaDeviceAttr(IntEnum):
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


Work = Callable[[], None]
OK = cudaError_t.cudaSuccess
REFUSED = cudaError_t.cudaErrorStreamCaptureUnsupported
SIDES: dict[int, tuple[Any, Any]] = {1: ("device", "host"), 2: ("host", "device"), 3: ("device", "device")}


class SimulatedCuda:
    """One device with one heap; an instance stands in for the module."""

    cudaError_t, cudaMemcpyKind, cudaDeviceAttr = cudaError_t, cudaMemcpyKind, cudaDeviceAttr
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaStreamNonBlocking, cudaHostAllocDefault, cudaEventDisableTiming = 1, 0, 2

    def __init__(self, compute_capability: str = "8.7", capacity: int = 1 << 30) -> None:
        self.heap = Heap(capacity)
        self.launches = 0
        self._capability = compute_capability
        self._streams: dict[int, list[Work]] = {}
        self._events: dict[int, tuple[int, Work] | None] = {}
        self._captures: dict[int, list[Work]] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._next = 1

    # memory
    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if self._captures:
            return REFUSED, None
        address = self.heap.allocate("device", size)
        return (OK, address) if address is not None else (cudaError_t.cudaErrorMemoryAllocation, None)

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:
        self._drain()
        self.heap.free("device", devPtr)
        return (OK,)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        return (REFUSED, None) if self._captures else (OK, self.heap.allocate("host", size))

    def cudaFreeHost(self, ptr: int) -> tuple[Any, ...]:
        self._drain()
        self.heap.free("host", ptr)
        return (OK,)

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return OK, self.heap.capacity - self.heap.in_use, self.heap.capacity

    # copies
    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: int, stream: int) -> tuple[Any, ...]:
        return self.cudaMemcpy2DAsync(dst, count, src, count, count, 1, kind, stream)

    def cudaMemcpy2DAsync(
        self, dst: int, dpitch: int, src: int, spitch: int, width: int, height: int, kind: int, stream: int
    ) -> tuple[Any, ...]:
        if width > dpitch or width > spitch:
            raise SimulationError(f"pitch {min(dpitch, spitch)} below width {width}")
        to, source = SIDES[int(kind)]

        def move() -> None:
            self.heap.check(dst, dpitch * (height - 1) + width, to)
            self.heap.check(src, spitch * (height - 1) + width, source)
            for row in range(height):
                ctypes.memmove(dst + row * dpitch, src + row * spitch, width)

        self.enqueue(stream, move)
        return (OK,)

    # streams and events
    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        self._streams[self._next] = []
        return OK, self._name()

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        self._run(stream)
        del self._streams[stream]
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        if stream in self._captures:
            return (REFUSED,)
        self._run(stream)
        self.heap.check_zones()
        return (OK,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        self._events[self._next] = None
        return OK, self._name()

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        def mark() -> None:
            return None

        self._events[event] = (stream, mark)
        self.enqueue(stream, mark)
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        if (recorded := self._events[event]) is not None:
            self._run(recorded[0], until=recorded[1])
        return (OK,)

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        del self._events[event]
        return (OK,)

    # graphs
    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self._captures[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        self._graphs[self._next] = self._captures.pop(stream)
        return OK, self._name()

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
        major, minor = self._capability.split(".")
        return OK, int(major if attr == cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor else minor)

    def enqueue(self, stream: int, work: Work) -> None:
        """Put work on a stream, or into the graph that is being captured from it."""
        (self._captures[stream] if stream in self._captures else self._streams[stream]).append(work)

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
            work()
            if work is until:
                return

    def _drain(self) -> None:
        for stream in self._streams:
            self._run(stream)

    def _name(self) -> int:
        self._next += 1
        return self._next - 1
