"""Memory of a GPU and of its streams. `device` and `cuda` are the `CudaDevice` that the memory was allocated on."""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from perceiver_runtime.cuda.library import beside_captures
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.tensors import Array

Memory = Literal["own", "foreign", "mapped"]


class Budget:
    """Bytes of device memory that the streams of one backend allocate together; `limit` None: all that is free."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.used = limit, 0
        self._lock = threading.RLock()  # a finalizer may run inside of `take`

    def take(self, size: int) -> None:
        """Count bytes. Raises UnavailableError beyond the limit."""
        with self._lock:
            if self.limit is not None and self.used + size > self.limit:
                raise UnavailableError(
                    f"device memory: expected at most {self.limit} bytes (device_memory), got {self.used + size}; "
                    "raise it, or use fewer callers, smaller batches or chunks"
                )
            self.used += size

    def give(self, size: int) -> None:
        """Count released bytes."""
        with self._lock:
            self.used -= size


class Handle:
    """A CUDA resource that is released when nothing refers to this object any more."""

    def __init__(self, value: Any, release: Callable[[Any], Any]) -> None:
        self.value = value
        weakref.finalize(self, release, value).atexit = False  # sessions go first: `perceiver_runtime.execution.lanes`


class Pinned:
    """Page-locked host memory for asynchronous copies; call `wait` before the host accesses it again."""

    def __init__(self, cuda: Any, nbytes: int, *, mapped: bool = False) -> None:
        cudart = cuda.cudart
        self._cuda = cuda
        flags = cudart.cudaHostAllocMapped if mapped else cudart.cudaHostAllocDefault
        with beside_captures(cudart):
            address = cuda.call(cudart.cudaHostAlloc(max(nbytes, 1), flags))

        def free(address: Any) -> None:
            with beside_captures(cudart):
                cudart.cudaFreeHost(address)

        self._memory = Handle(address, free)
        self._event = cuda.event()
        self._pending = False
        self.address = int(self._memory.value)
        self._bytes = (ctypes.c_byte * nbytes).from_address(self.address)
        self._bytes.owner = self._memory  # type: ignore[attr-defined]  # arrays of it keep it

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The memory as an array."""
        flat: Array = np.frombuffer(memoryview(self._bytes), dtype=dtype)
        return flat.reshape(shape)

    def mark(self) -> None:
        """Record that a copy from this memory has been enqueued."""
        self._cuda.record(self._event)
        self._pending = True

    def wait(self) -> None:
        """Wait until no copy reads this memory."""
        if self._pending:
            self._cuda.call(self._cuda.cudart.cudaEventSynchronize(self._event.value))
            self._pending = False


class DeviceBuffer:
    """Device memory as `rows` runs of `width` bytes, `pitch` bytes apart: one run if contiguous, more if a view.

    A view keeps a reference to the memory, which is released with the last one. `kind` says whose memory it is.
    """

    def __init__(
        self,
        device: Any,
        memory: Any,
        address: int,
        shape: tuple[int, ...],
        dtype: str | np.dtype[Any],
        *,
        rows: int = 1,
        pitch: int = 0,
        kind: Memory = "own",
    ) -> None:
        self.device, self.memory, self.address, self.shape = device, memory, address, shape
        self.dtype, self.rows, self.kind = np.dtype(dtype), rows, kind
        self.pitch = pitch or self.nbytes
        self.staging: Pinned | None = None

    def __getitem__(self, index: Any) -> DeviceBuffer:
        """All of it (`...`), or entries along one axis: what a plan reads of an array or writes into one."""
        last = index[-1]
        return self if last is ... else self.part(len(index) - 1, last.start, last.stop)

    def part(self, axis: int, start: int, stop: int) -> DeviceBuffer:
        """Entries [start, stop) along an axis of a contiguous buffer."""
        rows = math.prod(self.shape[:axis])
        run = math.prod(self.shape[axis + 1 :]) * self.dtype.itemsize
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        whole = rows == 1 or stop - start == self.shape[axis]
        return DeviceBuffer(
            self.device,
            self.memory,
            self.address + start * run,
            shape,
            self.dtype,
            rows=1 if whole else rows,
            pitch=self.shape[axis] * run,
            kind=self.kind,
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the entries take, without the gaps of a view."""
        return math.prod(self.shape) * self.dtype.itemsize
