"""DLPack's structures in memory: https://dmlc.github.io/dlpack/latest/c_api.html, the unversioned `DLManagedTensor`."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
"""DLDeviceType."""
HOST = (CPU, CUDA_HOST)
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}
_NAME = b"dltensor"


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DLManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


@dataclass(frozen=True)
class Memory:
    """An array in memory. `strides` are in bytes; `owner` keeps it. `device` is (DLDeviceType, index)."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    device: tuple[int, int]
    owner: Any

    @property
    def contiguous(self) -> bool:
        """Whether entries follow each other in C order."""
        expected = contiguous_strides(self.shape, self.dtype.itemsize)
        pairs = zip(self.shape, self.strides, expected, strict=True)
        return not math.prod(self.shape) or all(size == 1 or own == wanted for size, own, wanted in pairs)


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of an array in C order."""
    strides = []
    for size in reversed(shape):
        strides.append(itemsize)
        itemsize *= size
    return tuple(reversed(strides))


_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_raw = ctypes.PyDLL(None)  # a destructor gets its capsule while that is being deleted: no reference may be taken
_raw.PyCapsule_IsValid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_raw.PyCapsule_GetPointer.restype = ctypes.c_void_p
_raw.PyCapsule_GetPointer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_exported: dict[int, tuple[Any, ...]] = {}
"""What each exported structure refers to, by its address, until its consumer deletes it."""


def read(capsule: Any) -> Memory:
    """The array in a capsule, which stays unconsumed: it is the owner, and deletes itself.

    Raises ValueError for a type that NumPy does not have, or a capsule that was consumed.
    """
    tensor = _DLManagedTensor.from_address(_api.PyCapsule_GetPointer(capsule, _NAME)).tensor
    if tensor.code not in _KINDS or tensor.bits % 8 or tensor.lanes != 1:
        raise ValueError(f"DLPack type (code {tensor.code}, {tensor.bits} bits, {tensor.lanes} lanes)")
    kind = _KINDS[tensor.code]
    dtype = np.dtype("bool" if kind == "b" else f"{kind}{tensor.bits // 8}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = contiguous_strides(shape, dtype.itemsize)
    if tensor.ndim and tensor.strides:
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides[: tensor.ndim])
    address = (tensor.data or 0) + tensor.byte_offset
    return Memory(address, shape, dtype, strides, (tensor.device_type, tensor.device_id), capsule)


def write(memory: Memory) -> Any:
    """A capsule of a contiguous array, whose owner is kept until the consumer deletes it."""
    rank = len(memory.shape)
    shape = (ctypes.c_int64 * max(rank, 1))(*memory.shape)
    strides = (ctypes.c_int64 * max(rank, 1))(*(stride // memory.dtype.itemsize for stride in memory.strides))
    code, bits = _CODES[memory.dtype.kind], memory.dtype.itemsize * 8
    tensor = _DLTensor(memory.address, *memory.device, rank, code, bits, 1, shape, strides, 0)
    managed = _DLManagedTensor(tensor, None, ctypes.cast(_deleter, ctypes.c_void_p))
    address = ctypes.addressof(managed)
    _exported[address] = managed, shape, strides, memory.owner
    return _api.PyCapsule_New(address, _NAME, ctypes.cast(_destructor, ctypes.c_void_p))


def _delete(managed: int) -> None:
    """Called by the consumer."""
    _exported.pop(managed, None)


def _destroy(capsule: int) -> None:
    """Called when a capsule is deleted: one that nobody consumed still owns its array."""
    if _raw.PyCapsule_IsValid(capsule, _NAME):
        _exported.pop(_raw.PyCapsule_GetPointer(capsule, _NAME), None)


_deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_delete)
_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_destroy)
