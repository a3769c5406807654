"""Memory of ONNX Runtime on a device: values stay there between the graphs of a pipeline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from perceiver_runtime.tensors import Array

import onnxruntime as ort


@dataclass(frozen=True, eq=False)
class Resident:
    """Entries [start, stop) along an axis of a value on a `kind` of device; it keeps a reference to the value."""

    kind: str
    whole: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axis: int
    start: int
    stop: int

    @property
    def address(self) -> int:
        """Address of the first byte of a contiguous view."""
        run = math.prod(self.shape[self.axis + 1 :]) * self.dtype.itemsize
        return int(self.whole.data_ptr()) + self.start * run

    @property
    def entries(self) -> tuple[slice, ...]:
        """Index of the entries in the whole value."""
        return (*(slice(None),) * self.axis, slice(self.start, self.stop))

    @property
    def is_whole(self) -> bool:
        """Whether this is the complete value."""
        return self.shape == tuple(self.whole.shape())


class ResidentMemory:
    """The device protocol over `OrtValue`. Copies and runs of ONNX Runtime return when they have finished.

    ONNX Runtime can't copy a part of a value. Copies from or to a view with gaps between its rows (rows of frames,
    chunks of a batch of several) therefore transfer the whole value through the host.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Resident:
        """Uninitialised memory on the device."""
        number = np.dtype(dtype)
        value = ort.OrtValue.ortvalue_from_shape_and_type(shape, number.type, self._kind, 0)
        return Resident(self._kind, value, shape, number, 0, 0, shape[0] if shape else 1)

    def view(self, buffer: Resident, axis: int, start: int, stop: int) -> Resident:
        """Entries along an axis of a whole value."""
        shape = (*buffer.shape[:axis], stop - start, *buffer.shape[axis + 1 :])
        return Resident(self._kind, buffer.whole, shape, buffer.dtype, axis, start, stop)

    def is_contiguous(self, buffer: Resident) -> bool:
        """Whether rows are adjacent in memory."""
        return buffer.is_whole or math.prod(buffer.shape[: buffer.axis]) == 1

    def copy(self, source: Resident, target: Resident) -> None:
        """Copy through the host."""
        self.upload(self._read(source), target)

    def upload(self, array: Array, target: Resident) -> None:
        """Copy from host memory; for a view, the whole value is downloaded, changed and uploaded."""
        if target.is_whole:
            target.whole.update_inplace(np.ascontiguousarray(array, target.dtype))
            return
        whole = target.whole.numpy()
        whole[target.entries] = array
        target.whole.update_inplace(whole)

    def download(self, source: Resident, array: Array) -> None:
        """Copy to host memory."""
        np.copyto(array, self._read(source))

    def synchronize(self) -> None:
        """Do nothing: calls return when they have finished."""

    def _read(self, buffer: Resident) -> Array:
        whole: Array = buffer.whole.numpy()
        return whole if buffer.is_whole else whole[buffer.entries]
