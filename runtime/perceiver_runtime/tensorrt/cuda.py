"""Device memory, one stream and CUDA graphs, over `cuda.bindings.runtime` and NumPy alone.

The CUDA module is a parameter (`cudart`), so that the same code runs on a simulated device in tests. All work of a
device goes through one stream: it happens in order, and components that follow each other share scratch memory.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import numpy as np

from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.tensors import Array

GraphState = Literal["on", "off", "partly"]


def load_cudart() -> ModuleType:
    """Import `cuda.bindings.runtime` and see that a GPU answers. Raises UnavailableError."""
    try:
        cudart = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise UnavailableError(
            f"cuda-bindings is not installed ({error}); pip install 'perceiver-runtime[tensorrt]'"
        ) from error
    status, count = cudart.cudaGetDeviceCount()
    if int(status) or not count:
        raise UnavailableError(
            f"expected an NVIDIA GPU, CUDA found none ({status.name}); check `nvidia-smi`, and that the driver is at "
            "least as new as cuda-bindings"
        )
    return cudart


class Handle:
    """A CUDA resource that is released when nothing refers to this object any more."""

    def __init__(self, value: Any, release: Callable[[Any], Any]) -> None:
        self.value = value
        weakref.finalize(self, release, value)


class Pinned:
    """Page-locked host memory for asynchronous copies; call `wait` before the host accesses it again."""

    def __init__(self, cuda: CudaDevice, nbytes: int) -> None:
        cudart = cuda.cudart
        self._cuda = cuda
        self._memory = Handle(
            cuda.call(cudart.cudaHostAlloc(max(nbytes, 1), cudart.cudaHostAllocDefault)), cudart.cudaFreeHost
        )
        self._event = Handle(
            cuda.call(cudart.cudaEventCreateWithFlags(cudart.cudaEventDisableTiming)), cudart.cudaEventDestroy
        )
        self._pending = False
        self.address = int(self._memory.value)
        self._bytes = (ctypes.c_byte * nbytes).from_address(self.address)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The memory as an array."""
        flat: Array = np.frombuffer(memoryview(self._bytes), dtype=dtype)
        return flat.reshape(shape)

    def mark(self) -> None:
        """Record that a copy from this memory has been enqueued."""
        self._cuda.call(self._cuda.cudart.cudaEventRecord(self._event.value, self._cuda.stream))
        self._pending = True

    def wait(self) -> None:
        """Wait until no copy reads this memory."""
        if self._pending:
            self._cuda.call(self._cuda.cudart.cudaEventSynchronize(self._event.value))
            self._pending = False


class DeviceBuffer:
    """Device memory as `rows` runs of `width` bytes, `pitch` bytes apart: one run if contiguous, more if a view.

    A view keeps a reference to the memory, which is released with the last one.
    """

    def __init__(self, memory: Handle, address: int, shape: tuple[int, ...], dtype: str, rows: int, pitch: int) -> None:
        self.memory, self.address, self.shape, self.dtype = memory, address, shape, np.dtype(dtype)
        self.rows, self.pitch = rows, pitch
        self.staging: Pinned | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the entries take, without the gaps of a view."""
        return math.prod(self.shape) * self.dtype.itemsize


class CudaDevice:
    """The device protocol of `perceiver_runtime.backends` on one GPU. Raises UnavailableError if CUDA fails.

    `captured` has an entry for each bound engine that ran: whether it is launched as a CUDA graph.
    """

    def __init__(self, cudart: Any) -> None:
        self.cudart = cudart
        self.lock = threading.RLock()
        self.captured: list[bool] = []
        self._stream = Handle(
            self.call(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking)), cudart.cudaStreamDestroy
        )
        self.stream: Any = self._stream.value

    def call(self, result: tuple[Any, ...]) -> Any:
        """The value of a CUDA call. Raises UnavailableError naming the error."""
        error, *values = result
        if int(error):
            memory = error.name == "cudaErrorMemoryAllocation"
            remedy = (
                "use smaller batches or chunks, or free device memory" if memory else "see the device's log (dmesg)"
            )
            raise UnavailableError(f"CUDA: expected success, got {error.name}; {remedy}")
        return values[0] if values else None

    def allocate(self, shape: tuple[int, ...], dtype: str) -> DeviceBuffer:
        """Uninitialised, contiguous device memory."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self.allocate_bytes(size)
        return DeviceBuffer(memory, int(memory.value), shape, dtype, 1, size)

    def allocate_bytes(self, size: int) -> Handle:
        """Raw device memory of at least one byte, aligned to 256."""
        return Handle(self.call(self.cudart.cudaMalloc(max(size, 1))), self.cudart.cudaFree)

    def view(self, buffer: DeviceBuffer, axis: int, start: int, stop: int) -> DeviceBuffer:
        """Entries [start, stop) along an axis of a contiguous buffer."""
        rows = math.prod(buffer.shape[:axis])
        run = math.prod(buffer.shape[axis + 1 :]) * buffer.dtype.itemsize
        shape = (*buffer.shape[:axis], stop - start, *buffer.shape[axis + 1 :])
        whole = rows == 1 or stop - start == buffer.shape[axis]
        pitch = buffer.shape[axis] * run
        return DeviceBuffer(
            buffer.memory, buffer.address + start * run, shape, buffer.dtype.name, 1 if whole else rows, pitch
        )

    def is_contiguous(self, buffer: DeviceBuffer) -> bool:
        """Whether it is one run of bytes."""
        return buffer.rows == 1

    def copy(self, source: DeviceBuffer, target: DeviceBuffer) -> None:
        """Copy on the device."""
        rows = max(source.rows, target.rows)
        width = source.nbytes // rows
        with self.lock:
            self._copy(
                (target.address, target.pitch if target.rows > 1 else width),
                (source.address, source.pitch if source.rows > 1 else width),
                (width, rows),
                self.cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice,
            )

    def upload(self, array: Array, target: DeviceBuffer) -> None:
        """Copy from host memory, through pinned memory of the target's own; returns before the copy has finished."""
        with self.lock:
            staging = self._staging(target)
            staging.wait()
            np.copyto(staging.array(target.shape, target.dtype), array)
            width = target.nbytes // target.rows
            self._copy(
                (target.address, target.pitch),
                (staging.address, width),
                (width, target.rows),
                self.cudart.cudaMemcpyKind.cudaMemcpyHostToDevice,
            )
            staging.mark()

    def download(self, source: DeviceBuffer, array: Array) -> None:
        """Copy to host memory when all earlier work has finished."""
        with self.lock:
            staging = self._staging(source)
            width = source.nbytes // source.rows
            self._copy(
                (staging.address, width),
                (source.address, source.pitch),
                (width, source.rows),
                self.cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost,
            )
            self.synchronize()
            np.copyto(array, staging.array(source.shape, source.dtype))

    def synchronize(self) -> None:
        """Wait until the stream is empty."""
        self.call(self.cudart.cudaStreamSynchronize(self.stream))

    def capture(self, enqueue: Callable[[], None]) -> Handle:
        """Record what `enqueue` puts on the stream, without running it, as a graph for `launch`.

        Raises UnavailableError if something can't be captured; the stream can be used again then.
        """
        cudart = self.cudart
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call(cudart.cudaStreamBeginCapture(self.stream, mode))
        try:
            enqueue()
        except Exception:
            cudart.cudaStreamEndCapture(self.stream)  # leaves capture mode; the first error is the one to report
            raise
        graph = self.call(cudart.cudaStreamEndCapture(self.stream))
        try:
            return Handle(self.call(cudart.cudaGraphInstantiate(graph, 0)), cudart.cudaGraphExecDestroy)
        finally:
            self.call(cudart.cudaGraphDestroy(graph))

    def launch(self, graph: Handle) -> None:
        """Put a captured graph on the stream."""
        self.call(self.cudart.cudaGraphLaunch(graph.value, self.stream))

    def compute_capability(self) -> str:
        """Such as `8.7`."""
        kinds = self.cudart.cudaDeviceAttr
        index = self.call(self.cudart.cudaGetDevice())
        attributes = (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor)
        return ".".join(str(self.call(self.cudart.cudaDeviceGetAttribute(a, index))) for a in attributes)

    def name(self) -> str:
        """The GPU's name."""
        properties = self.call(self.cudart.cudaGetDeviceProperties(self.call(self.cudart.cudaGetDevice())))
        name: bytes | str = properties.name
        return name.decode() if isinstance(name, bytes) else name

    def free_bytes(self) -> int:
        """Free device memory in bytes; on a Jetson that is system memory."""
        error, free, _total = self.cudart.cudaMemGetInfo()
        self.call((error,))
        return int(free)

    def used_bytes(self) -> int:
        """Used device memory in bytes, by all programs; on a Jetson that is system memory."""
        error, free, total = self.cudart.cudaMemGetInfo()
        self.call((error,))
        return int(total) - int(free)

    def cuda_graphs(self) -> GraphState:
        """Whether the engines that ran on it are launched as CUDA graphs."""
        if not any(self.captured):
            return "off"
        return "on" if all(self.captured) else "partly"

    def _staging(self, buffer: DeviceBuffer) -> Pinned:
        if buffer.staging is None:
            buffer.staging = Pinned(self, buffer.nbytes)
        return buffer.staging

    def _copy(self, target: tuple[int, int], source: tuple[int, int], size: tuple[int, int], kind: Any) -> None:
        """Copy `rows` runs of `width` bytes; target and source are (address, pitch)."""
        width, rows = size
        if width == 0:
            return
        if rows == 1:
            self.call(self.cudart.cudaMemcpyAsync(target[0], source[0], width, kind, self.stream))
        else:
            self.call(self.cudart.cudaMemcpy2DAsync(*target, *source, width, rows, kind, self.stream))
