"""Backends by name. A backend's module is imported on demand and defines `open_backend(name, threads)`."""

from __future__ import annotations

from importlib import import_module

from perceiver_runtime.backends.backend import Backend
from perceiver_runtime.errors import UnavailableError, UsageError
from perceiver_runtime.machine import usable_cores
from perceiver_runtime.tensors import is_whole

BACKENDS = {
    "onnxruntime": "perceiver_runtime.backends.onnxruntime",
    "onnxruntime-exact": "perceiver_runtime.backends.onnxruntime",
    "onnxruntime-quick": "perceiver_runtime.backends.onnxruntime",
    "onnxruntime-cuda": "perceiver_runtime.cuda.onnxruntime",
    "onnxruntime-tensorrt": "perceiver_runtime.backends.onnxruntime",
    "onnxruntime-rtx": "perceiver_runtime.backends.onnxruntime",
    "openvino": "perceiver_runtime.backends.openvino",
    "openvino-bf16": "perceiver_runtime.backends.openvino",
    "tensorrt": "perceiver_runtime.tensorrt.backend",
    "tensorrt-lean": "perceiver_runtime.tensorrt.backend",
    "tensorrt-dispatch": "perceiver_runtime.tensorrt.backend",
    "tensorrt-rtx": "perceiver_runtime.tensorrt.backend",
}
AUTO = "onnxruntime"
PROCESSOR_BACKENDS = frozenset(("onnxruntime", "onnxruntime-exact", "onnxruntime-quick", "openvino", "openvino-bf16"))
"""Backends that compute on the processor, with `threads` threads."""
COMPUTE = {"int8-dynamic": ("onnxruntime", "onnxruntime-exact", "onnxruntime-quick")}
"""Precisions that only these backends compute in; others would silently run such graphs in FP32."""
MAX_THREADS_PER_CORE = 4
"""More threads only wait for each other; tens of thousands make the opening of a session hang."""


def open_backend(name: str = "auto", threads: int | None = None) -> Backend:
    """Open a backend.

    Args:
        name: A name of `BACKENDS`, or `auto` for `AUTO`.
        threads: Largest number of CPU threads; None uses all cores.

    Returns:
        The backend.

    Raises:
        UsageError: The name is unknown, or the number of threads out of range.
        UnavailableError: Its package or device is not available on this machine.
    """
    name = AUTO if name == "auto" else name
    if name not in BACKENDS:
        raise UsageError(f"backend {name!r}; expected auto, {', '.join(BACKENDS)}")
    check_threads(threads)
    backend: Backend = import_module(BACKENDS[name]).open_backend(name, threads)
    return backend


def check_threads(threads: int | None) -> None:
    """Raise UsageError unless threads are 1 to `MAX_THREADS_PER_CORE` times the usable cores, or None."""
    most = MAX_THREADS_PER_CORE * usable_cores()
    if threads is not None and (not is_whole(threads) or not 1 <= threads <= most):
        raise UsageError(
            f"threads (--threads): expected 1 to {most} ({MAX_THREADS_PER_CORE} for each usable core), got {threads}"
        )


def check_precision(backend: str, precision: str) -> None:
    """Raise UnavailableError if the backend would run a graph of this precision in another one."""
    if backend not in (offered := COMPUTE.get(precision, (backend,))):
        raise UnavailableError(
            f"backend {backend}: expected a precision that it computes in, got {precision}; open the bundle on "
            f"{' or '.join(offered)}, or export int8"
        )
