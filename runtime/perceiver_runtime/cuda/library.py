"""The CUDA runtime's Python bindings, and what to do about its errors."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from perceiver_runtime.errors import UnavailableError

FOR_GOOD = {
    f"cudaError{name}"
    for name in (
        *("IllegalAddress", "LaunchTimeout", "HardwareStackError", "IllegalInstruction", "MisalignedAddress"),
        *("InvalidAddressSpace", "InvalidPc", "LaunchFailure", "Assert", "ECCUncorrectable", "NvlinkUncorrectable"),
        *("ExternalDevice", "DevicesUnavailable"),
    )
}
"""Errors after which every call of the process fails in the same way, by the documentation of `cudaError`."""
_REMEDIES = {
    "cudaErrorMemoryAllocation": "use smaller batches or chunks, fewer callers, or free device memory",
    **dict.fromkeys(FOR_GOOD, "this process can't use the GPU again: restart it, and see the device's log (dmesg)"),
}
_SEE_LOG = "see the device's log (dmesg)"


def load_cudart(extra: str = "tensorrt") -> ModuleType:
    """Import `cuda.bindings.runtime` and see that a GPU answers.

    Args:
        extra: Extra of perceiver-runtime that installs it, for the message.

    Returns:
        The module.

    Raises:
        UnavailableError: It is not installed, or there is no GPU.
    """
    try:
        cudart = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise UnavailableError(
            f"cuda-bindings is not installed ({error}); pip install 'perceiver-runtime[{extra}]'"
        ) from error
    status, count = cudart.cudaGetDeviceCount()
    if int(status) or not count:
        raise UnavailableError(
            f"expected an NVIDIA GPU, CUDA found none ({status.name}); check `nvidia-smi`, and that the driver is at "
            "least as new as cuda-bindings"
        )
    return cudart


@contextmanager
def beside_captures(cudart: Any) -> Iterator[None]:
    """Calls that CUDA else refuses while any thread captures a graph, as ONNX Runtime does."""
    _error, mode = cudart.cudaThreadExchangeStreamCaptureMode(
        cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    )
    try:
        yield
    finally:
        cudart.cudaThreadExchangeStreamCaptureMode(mode)


def value_of(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call. Raises UnavailableError naming the error."""
    error, *values = result
    if int(error):
        raise UnavailableError(f"CUDA: expected success, got {error.name}; {_REMEDIES.get(error.name, _SEE_LOG)}")
    return values[0] if values else None
