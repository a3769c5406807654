"""Choice of the telemetry source of this machine."""

from __future__ import annotations

import importlib

from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.machine import jetpack_release
from perceiver_runtime.telemetry.jetson import Jetson
from perceiver_runtime.telemetry.nvml import Nvml
from perceiver_runtime.telemetry.sample import Source


def open_source() -> Source:
    """Open the sensors of a Jetson, or NVML elsewhere. Raises UnavailableError if there is neither."""
    if jetpack_release() is not None:
        return Jetson()
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise UnavailableError(
            f"telemetry: expected a Jetson, or NVML for an NVIDIA GPU ({error}); pip install nvidia-ml-py"
        ) from error
    return Nvml(nvml)
