"""SIMULATION of another library's arrays on the device, and of its streams."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from engines.simulation.cudart import SimulatedCuda
from engines.simulation.order import Access, Work

from perceiver_runtime.cuda import dlpack
from perceiver_runtime.tensors import Array


class ForeignStream:
    """A stream as PyTorch shows one."""

    def __init__(self, cuda: SimulatedCuda) -> None:
        self.cuda = cuda
        self.cuda_stream: int = cuda.cudaStreamCreateWithFlags(1)[1]


class ForeignArray:
    """An array whose numbers are written by late work on its library's stream; `device` and `strides` may be wrong."""

    def __init__(self, stream: ForeignStream, numbers: Array, *, device: int = 0, offset: int = 0, **changes: Any):
        self.stream, self.shape, self.dtype = stream, numbers.shape, numbers.dtype
        self.device, self.changes = device, changes
        self.block: int = stream.cuda.cudaMalloc(max(1, numbers.nbytes + offset))[1]
        self.address = self.block + offset
        self.write(numbers)

    def write(self, numbers: Array) -> None:
        """Enqueue the writing of numbers."""
        content = numbers.tobytes()
        access = Access(self.address, self.address + len(content), True)
        work = Work(lambda: ctypes.memmove(self.address, content, len(content)), (access,))
        self.stream.cuda.enqueue(self.stream.cuda_stream, work)

    def read(self) -> Array:
        """The numbers, when the stream has finished: a copy that the library makes, which counts as none."""
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        access = Access(self.address, self.address + size, False)
        found: list[bytes] = []
        work = Work(lambda: found.append(ctypes.string_at(self.address, size)), (access,))
        self.stream.cuda.enqueue(self.stream.cuda_stream, work)
        self.stream.cuda.cudaStreamSynchronize(self.stream.cuda_stream)
        return np.frombuffer(found[0], self.dtype).reshape(self.shape)

    def free(self) -> None:
        """Free the memory, while others may hold its address."""
        self.stream.cuda.heap.free("device", self.block)

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides in bytes."""
        given = self.changes.get("strides")
        return given or dlpack.contiguous_strides(self.shape, self.dtype.itemsize)


class Tensor(ForeignArray):
    """With DLPack."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.changes.get("kind", dlpack.CUDA), self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        cuda = self.stream.cuda
        if stream != self.stream.cuda_stream:
            event = cuda.cudaEventCreateWithFlags(2)[1]
            cuda.cudaEventRecord(event, self.stream.cuda_stream)
            cuda.cudaStreamWaitEvent(1 if stream is None else stream, event, 0)
        return dlpack.write(
            dlpack.Memory(self.address, self.shape, self.dtype, self.strides, self.__dlpack_device__(), self)
        )


class Interfaced(ForeignArray):
    """With the CUDA array interface alone."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.changes.get("address", self.address), self.changes.get("readonly", False)),
            "version": 3,
            "strides": self.changes.get("strides"),
            "mask": self.changes.get("mask"),
            "stream": self.stream.cuda_stream,
        }
