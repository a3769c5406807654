"""Arrays of other libraries on the host, taken without a copy by DLPack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from perceiver_runtime.errors import FeedError, UnavailableError, UsageError
from perceiver_runtime.tensors import Array, TensorSpec

HOST = (1, 3)
"""DLPack's kinds of host memory: ordinary and page-locked."""
DEVICES = {2: "CUDA", 13: "CUDA managed memory", 8: "Metal", 10: "ROCm"}


def host_array(name: str, array: Any) -> Array | None:
    """The array on the host, not copied; None for memory of a device. Raises FeedError for what is no array."""
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "__dlpack_device__"):
        if array.__dlpack_device__()[0] not in HOST:
            return None
        try:
            taken: Array = np.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise FeedError(
                f"{name}: expected an array that DLPack exports, got {kind(array)}: {error}; give its data "
                "(.detach(), .contiguous())"
            ) from error
        return taken
    if hasattr(array, "__cuda_array_interface__"):
        return None
    raise FeedError(
        f"{name}: expected an array of NumPy, or one with __dlpack__ or __cuda_array_interface__, got {kind(array)}; "
        "make it one: np.asarray(...)"
    )


def check_target(spec: TensorSpec, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise FeedError unless the caller's array for an output has its shape and type."""
    if shape != spec.shape or dtype != np.dtype(spec.dtype):
        raise FeedError(f"out: expected {spec}, got {np.dtype(dtype).name}{list(shape)}; give an array of that")


def host_target(spec: TensorSpec, array: Array) -> Array:
    """The caller's array for an output. Raises FeedError unless it matches and can be written."""
    check_target(spec, array.shape, array.dtype)
    if not array.flags.writeable:
        raise FeedError(f"out: expected {spec.name} to be writeable, got a read-only array; give a copy")
    return array


def kind(array: object) -> str:
    """Class of an object, with its module."""
    return f"{type(array).__module__}.{type(array).__qualname__}"


class HostExchange:
    """Arrays of a caller on a backend without a device: all are on the host. Raises UsageError if there is a stream."""

    def __init__(self, stream: Any) -> None:
        if stream is not None:
            raise UsageError("stream: expected none on a backend without streams, got one; leave it out")

    def take(self, name: str, array: Any) -> Array:
        """The array, not copied. Raises FeedError for one on a device."""
        taken = host_array(name, array)
        if taken is None:
            raise FeedError(
                f"{name}: expected an array on the host, for this backend has no device arrays, got {kind(array)} on "
                f"{where(array)}; copy it to the host, or open the session on a TensorRT backend or onnxruntime-cuda"
            )
        return taken

    def target(self, spec: TensorSpec, given: Any) -> Array:
        """A new array, or the caller's."""
        if given is None:
            return np.empty(spec.resolve({}), spec.dtype)
        return host_target(spec, self.take(f"out: {spec.name}", given))

    def begin(self) -> None:
        """Do nothing: there is no stream."""

    def finish(self, results: Mapping[str, Array], written: Iterable[Any] = ()) -> dict[str, Any]:
        """The arrays, which are complete."""
        return dict(results)

    def read(self, buffer: Array) -> Array:
        """The array."""
        return buffer

    def mapped(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Raise UnavailableError: there is no device."""
        del shape, dtype
        raise UnavailableError("mapped memory: expected a backend with a device, got one without; use NumPy arrays")


def where(array: Any) -> str:
    """The device of an array, for messages."""
    if not hasattr(array, "__dlpack_device__"):
        return "CUDA"
    code, index = array.__dlpack_device__()
    return f"{DEVICES.get(int(code), f'DLPack device {int(code)}')} {index}"
