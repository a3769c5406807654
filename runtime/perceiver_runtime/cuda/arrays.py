"""Arrays on the GPU in and out: DLPack and the CUDA array interface (version 3), in the order of the caller's stream.

https://dmlc.github.io/dlpack/latest/python_spec.html and
https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from perceiver_runtime.backends.foreign import check_target, host_array, host_target, kind, where
from perceiver_runtime.cuda import dlpack
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.cuda.memory import DeviceBuffer, Handle
from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.tensors import Array, TensorSpec, is_whole

LEGACY_STREAM = 1
"""The default stream, which is 0 to CUDA itself and reserved in both protocols."""
NO_SYNCHRONISATION = -1


class DeviceArray:
    """An array on the GPU that a caller got. PyTorch and CuPy take it by `from_dlpack` without a copy.

    Attributes:
        shape: Shape in numbers.
        dtype: NumPy dtype.
        host: For mapped memory, the same memory as a NumPy array, else None.
    """

    def __init__(self, buffer: DeviceBuffer, ready: Handle | None, stream: int | None, host: Array | None = None):
        """`ready` marks its completion on `stream`; without a stream it is complete."""
        self.buffer, self.ready, self.host = buffer, ready, host
        self._stream = stream
        self.shape, self.dtype = buffer.shape, buffer.dtype

    def completes(self, ready: Handle | None, stream: int | None) -> None:
        """Note that it was written again, and when on that stream it is complete."""
        self.ready, self._stream = ready, stream

    def numpy(self) -> Array:
        """Copy to the host, when it is complete."""
        device = self.buffer.device
        if self.ready is not None:
            device.finish(self.ready)
        array: Array = device.read(self.buffer)
        return array

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.buffer.device.index

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        if options.get("copy") or options.get("dl_device") not in (None, self.__dlpack_device__()):
            raise BufferError("an array on the GPU is exported where it is, without a copy; use numpy() for the host")
        if self.ready is not None and stream != NO_SYNCHRONISATION:
            self.buffer.device.wait(self.ready, LEGACY_STREAM if stream is None else stream)
        buffer = self.buffer
        strides = dlpack.contiguous_strides(buffer.shape, buffer.dtype.itemsize)
        return dlpack.write(
            dlpack.Memory(buffer.address, buffer.shape, buffer.dtype, strides, self.__dlpack_device__(), self)
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.buffer.address, False),
            "version": 3,
            "strides": None,
            "stream": self._stream,
        }

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype.name}{list(self.shape)}, device {self.buffer.device.index})"


class CudaExchange:
    """Arrays of one caller on a `CudaDevice`."""

    def __init__(self, device: CudaDevice, stream: Any) -> None:
        self._device = device
        self._stream = stream_handle(stream)
        self._event = device.event()

    def take(self, name: str, array: Any) -> Any:
        """Memory of the caller's array, not copied; a NumPy array if it is on the host."""
        if isinstance(array, DeviceArray):
            return self._own(name, array)
        if (taken := host_array(name, array)) is not None:
            return taken
        memory = self._by_dlpack(name, array) if hasattr(array, "__dlpack__") else self._by_interface(name, array)
        return self._buffer(name, memory)

    def target(self, spec: TensorSpec, given: Any) -> Any:
        """A new buffer, or memory of the caller's array."""
        if given is None:
            return self._device.allocate(spec.resolve({}), spec.dtype)
        taken = self.take(f"out: {spec.name}", given)
        if isinstance(taken, np.ndarray):
            return host_target(spec, taken)
        check_target(spec, taken.shape, taken.dtype)
        interface = {} if hasattr(given, "__dlpack__") else given.__cuda_array_interface__
        if interface and interface["data"][1]:
            raise FeedError(f"out: expected {spec.name} to be writeable, got a read-only array; give a copy")
        return taken

    def begin(self) -> None:
        """The device waits for the caller's stream."""
        if self._stream is not None:
            self._after(self._stream)

    def finish(self, results: Mapping[str, DeviceBuffer], written: Iterable[Any] = ()) -> dict[str, Any]:
        """The caller's stream waits for the device; without one, the host does."""
        device, stream, ready = self._device, self._stream, None
        if stream is None:
            device.synchronize()
        else:
            ready = device.event()
            device.record(ready)
            device.wait(ready, stream)
        for array in written:
            if isinstance(array, DeviceArray):
                array.completes(ready, stream)
        return {name: DeviceArray(buffer, ready, stream) for name, buffer in results.items()}

    def read(self, buffer: DeviceBuffer) -> Array:
        """A copy on the host, made behind all that the device waits for."""
        self._device.synchronize()
        return self._device.read(buffer)

    def mapped(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Memory that CPU and GPU share."""
        buffer, host = self._device.allocate_mapped(shape, dtype)
        return DeviceArray(buffer, None, None, host)

    def _own(self, name: str, array: DeviceArray) -> DeviceBuffer:
        self._check_device(name, array, array.buffer.device.index)
        if array.ready is not None:
            self._device.wait(array.ready)
        return array.buffer

    def _after(self, stream: int) -> None:
        """Later work of the device waits for what a stream has so far."""
        self._device.record(self._event, stream)
        self._device.wait(self._event)

    def _by_dlpack(self, name: str, array: Any) -> dlpack.Memory:
        """Its producer makes the caller's stream, or without one the device's, wait for the array."""
        code, index = (int(number) for number in array.__dlpack_device__())
        if code not in (dlpack.CUDA, dlpack.CUDA_MANAGED):
            raise FeedError(f"{name}: expected an array on CUDA or the host, got {where(array)}; copy it there")
        self._check_device(name, array, index)
        try:
            return dlpack.read(array.__dlpack__(stream=self._stream or int(self._device.stream)))
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise FeedError(
                f"{name}: expected an array that DLPack exports, got {kind(array)}: {error}; give its data (.detach()) "
                "in the type of the input"
            ) from error

    def _by_interface(self, name: str, array: Any) -> dlpack.Memory:
        found = array.__cuda_array_interface__
        if found.get("mask") is not None:
            raise FeedError(f"{name}: expected an array without a mask, got a masked {kind(array)}; fill it")
        dtype, shape, address = np.dtype(found["typestr"]), tuple(found["shape"]), int(found["data"][0])
        strides = found.get("strides") or dlpack.contiguous_strides(shape, dtype.itemsize)
        index = self._device.locate(address) if address else self._device.index
        if index is None:
            raise FeedError(f"{name}: expected memory of a GPU, got {address:#x}, which is none; check its owner")
        self._check_device(name, array, index)
        if (stream := found.get("stream")) is not None and stream != self._stream:
            self._after(int(stream))
        return dlpack.Memory(address, shape, dtype, tuple(strides), (dlpack.CUDA, index), array)

    def _check_device(self, name: str, array: Any, index: int) -> None:
        if index != self._device.index:
            raise FeedError(
                f"{name}: expected an array on GPU {self._device.index}, where the session runs, got {kind(array)} on "
                f"GPU {index}; copy it there"
            )

    def _buffer(self, name: str, memory: dlpack.Memory) -> DeviceBuffer:
        if not memory.contiguous:
            raise FeedError(
                f"{name}: expected a contiguous array, got shape {list(memory.shape)} with strides of "
                f"{list(memory.strides)} bytes; make it one (.contiguous(), cupy.ascontiguousarray)"
            )
        if memory.address % memory.dtype.itemsize:
            raise FeedError(
                f"{name}: expected memory aligned to {memory.dtype.itemsize} bytes, got address {memory.address:#x}; "
                "copy the array"
            )
        return DeviceBuffer(self._device, memory.owner, memory.address, memory.shape, memory.dtype, kind="foreign")


def stream_handle(stream: Any) -> int | None:
    """A stream as an integer: one, or an object with `__cuda_stream__` (cuda.core) or `cuda_stream` (PyTorch).

    The default stream is `LEGACY_STREAM`. Raises UsageError for anything else.
    """
    if stream is None:
        return None
    handle = stream
    if hasattr(stream, "__cuda_stream__"):
        protocol = stream.__cuda_stream__
        handle = (protocol() if callable(protocol) else protocol)[1]
    elif hasattr(stream, "cuda_stream"):
        handle = stream.cuda_stream
    if not is_whole(handle) or handle < 0:
        raise UsageError(
            f"stream: expected an integer, or an object with __cuda_stream__ or cuda_stream, got {kind(stream)}; "
            "for CuPy give stream.ptr"
        )
    return int(handle) or LEGACY_STREAM
