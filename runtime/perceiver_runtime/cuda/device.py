"""Device memory, a stream and CUDA graphs, over `cuda.bindings.runtime` and NumPy alone.

The CUDA module is a parameter (`cudart`), so that the same code runs on a simulated device in tests. A `CudaDevice` is
one stream on the GPU: its work happens in order, and components that follow each other share its scratch memory. It is
used by one thread at a time; `beside` opens another for the next caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from perceiver_runtime.backends.backend import Priority
from perceiver_runtime.cuda.library import FOR_GOOD, beside_captures, value_of
from perceiver_runtime.cuda.memory import Budget, DeviceBuffer, Handle, Pinned
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.tensors import Array

GraphState = Literal["on", "off", "partly"]


class CudaDevice:
    """The device protocol of `perceiver_runtime.backends` on one GPU. Raises UnavailableError if CUDA fails.

    `captured` has an entry for each bound engine that ran on any stream: whether it is launched as a CUDA graph.
    """

    def __init__(self, cudart: Any, budget: Budget | None = None, priority: Priority = "normal") -> None:
        self.cudart = cudart
        self.budget = Budget() if budget is None else budget
        self.index = int(self.call(cudart.cudaGetDevice()))
        error, lowest, highest = cudart.cudaDeviceGetStreamPriorityRange()
        self.call((error,))
        self.captured: list[bool] = []
        self._stream = Handle(
            self.call(
                cudart.cudaStreamCreateWithPriority(
                    cudart.cudaStreamNonBlocking, highest if priority == "high" else lowest
                )
            ),
            cudart.cudaStreamDestroy,
        )
        self.stream: Any = self._stream.value
        self._scratch: tuple[Handle, int] | None = None

    def beside(self, priority: Priority) -> CudaDevice:
        """Another stream on the same GPU, with scratch memory of its own."""
        other = CudaDevice(self.cudart, self.budget, priority)
        other.captured = self.captured
        return other

    def call(self, result: tuple[Any, ...]) -> Any:
        """The value of a CUDA call. Raises UnavailableError naming the error."""
        return value_of(result)

    def check(self) -> None:
        """Raise UnavailableError if this process can't use the GPU any more."""
        (error,) = self.cudart.cudaPeekAtLastError()
        if error.name in FOR_GOOD:
            self.call((error,))

    def allocate(self, shape: tuple[int, ...], dtype: str) -> DeviceBuffer:
        """Uninitialised, contiguous device memory."""
        memory = self.allocate_bytes(math.prod(shape) * np.dtype(dtype).itemsize)
        return DeviceBuffer(self, memory, int(memory.value), shape, dtype)

    def allocate_bytes(self, size: int) -> Handle:
        """Raw device memory of at least one byte, aligned to 256."""
        cudart, budget, size = self.cudart, self.budget, max(size, 1)
        budget.take(size)
        try:
            with beside_captures(cudart):
                address = self.call(cudart.cudaMalloc(size))
        except UnavailableError:
            budget.give(size)
            raise

        def free(address: Any) -> None:
            with beside_captures(cudart):
                cudart.cudaFree(address)
            budget.give(size)

        return Handle(address, free)

    def scratch(self, size: int) -> Handle:
        """Working memory of at least `size` bytes for all components of the stream, of which only one runs at a time.

        Memory returned earlier stays valid while it is referenced.
        """
        if self._scratch is None or self._scratch[1] < size:
            self._scratch = self.allocate_bytes(size), size
        return self._scratch[0]

    def allocate_mapped(self, shape: tuple[int, ...], dtype: str) -> tuple[DeviceBuffer, Array]:
        """Host memory that the GPU of a board with unified memory reads and writes in place, as buffer and as array.

        Raises UnavailableError where the GPU has memory of its own: each access would cross the bus.
        """
        if not self.attribute(self.cudart.cudaDeviceAttr.cudaDevAttrIntegrated):
            raise UnavailableError(
                f"mapped memory: expected a board whose CPU and GPU share memory (Jetson), got {self.name()}; "
                "give arrays on the device"
            )
        pinned = Pinned(self, math.prod(shape) * np.dtype(dtype).itemsize, mapped=True)
        address = int(self.call(self.cudart.cudaHostGetDevicePointer(pinned.address, 0)))
        return DeviceBuffer(self, pinned, address, shape, dtype, kind="mapped"), pinned.array(shape, np.dtype(dtype))

    def view(self, buffer: DeviceBuffer, axis: int, start: int, stop: int) -> DeviceBuffer:
        """Entries [start, stop) along an axis of a contiguous buffer."""
        return buffer.part(axis, start, stop)

    def is_contiguous(self, buffer: DeviceBuffer) -> bool:
        """Whether it is one run of bytes."""
        return buffer.rows == 1

    def copy(self, source: DeviceBuffer, target: DeviceBuffer) -> None:
        """Copy on the device."""
        rows = max(source.rows, target.rows)
        width = source.nbytes // rows
        kinds = self.cudart.cudaMemcpyKind
        mapped = "mapped" in (source.kind, target.kind)
        self._copy(
            (target.address, target.pitch if target.rows > 1 else width),
            (source.address, source.pitch if source.rows > 1 else width),
            (width, rows),
            kinds.cudaMemcpyDefault if mapped else kinds.cudaMemcpyDeviceToDevice,
        )

    def upload(self, array: Array | DeviceBuffer, target: DeviceBuffer) -> None:
        """Copy from host memory, through pinned memory of the target's own; returns before the copy has finished.

        An array on the device is copied there.
        """
        if isinstance(array, DeviceBuffer):
            self.copy(array, target)
            return
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

    def download(self, source: DeviceBuffer, array: Array | DeviceBuffer) -> None:
        """Copy to host memory when all earlier work has finished; to an array on the device without waiting."""
        if isinstance(array, DeviceBuffer):
            self.copy(source, array)
            return
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

    def event(self) -> Handle:
        """An event, without timing."""
        cudart = self.cudart
        return Handle(
            self.call(cudart.cudaEventCreateWithFlags(cudart.cudaEventDisableTiming)), cudart.cudaEventDestroy
        )

    def record(self, event: Handle, stream: Any = None) -> None:
        """Mark what is on a stream (None: this device's own) so far."""
        self.call(self.cudart.cudaEventRecord(event.value, self.stream if stream is None else stream))

    def wait(self, event: Handle, stream: Any = None) -> None:
        """Later work of a stream (None: this device's own) waits for the event; the host does not."""
        self.call(self.cudart.cudaStreamWaitEvent(self.stream if stream is None else stream, event.value, 0))

    def finish(self, event: Handle) -> None:
        """The host waits for an event."""
        with beside_captures(self.cudart):
            self.call(self.cudart.cudaEventSynchronize(event.value))

    def read(self, buffer: DeviceBuffer) -> Array:
        """A copy on the host of a contiguous buffer that is complete; behind no stream."""
        array: Array = np.empty(buffer.shape, buffer.dtype)
        kinds = self.cudart.cudaMemcpyKind
        kind = kinds.cudaMemcpyDefault if buffer.kind == "mapped" else kinds.cudaMemcpyDeviceToHost
        if buffer.nbytes:
            with beside_captures(self.cudart):
                self.call(self.cudart.cudaMemcpy(array.ctypes.data, buffer.address, buffer.nbytes, kind))
        return array

    def locate(self, address: int) -> int | None:
        """Index of the GPU whose memory an address is in; None for other memory."""
        cudart = self.cudart
        kinds = cudart.cudaMemoryType
        found = self.call(cudart.cudaPointerGetAttributes(address))
        managed = (kinds.cudaMemoryTypeDevice, kinds.cudaMemoryTypeManaged)
        return int(found.device) if found.type in managed else None

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

    def leave_capture(self) -> None:
        """Leave the capture of a graph that a library began on the stream and did not end."""
        cudart = self.cudart
        none = cudart.cudaStreamCaptureStatus.cudaStreamCaptureStatusNone
        if self.call(cudart.cudaStreamIsCapturing(self.stream)) != none:
            cudart.cudaStreamEndCapture(self.stream)
            cudart.cudaGetLastError()  # later calls of others would take it for their own

    def launch(self, graph: Handle) -> None:
        """Put a captured graph on the stream."""
        self.call(self.cudart.cudaGraphLaunch(graph.value, self.stream))

    def compute_capability(self) -> str:
        """Such as `8.7`."""
        kinds = self.cudart.cudaDeviceAttr
        both = (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor)
        return ".".join(str(self.attribute(kind)) for kind in both)

    def attribute(self, kind: Any) -> int:
        """An attribute of the GPU, one of `cudaDeviceAttr`."""
        return int(self.call(self.cudart.cudaDeviceGetAttribute(kind, self.index)))

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
