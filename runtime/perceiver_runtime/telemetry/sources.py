"""Choice of the telemetry source of this machine."""

from __future__ import annotations

import importlib
from typing import Literal

from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.machine import jetpack_release
from perceiver_runtime.telemetry.jetson import Jetson
from perceiver_runtime.telemetry.nvml import Nvml
from perceiver_runtime.telemetry.processor import Processor, require_rapl
from perceiver_runtime.telemetry.sample import Source

Unit = Literal["gpu", "processor"]


def open_source(unit: Unit = "gpu") -> Source:
    """Open what measures the power of this machine: the rails of a Jetson, NVML for a GPU, RAPL for a processor.

    Args:
        unit: What computes. A Jetson's rails measure the whole board.

    Returns:
        The source.

    Raises:
        UnavailableError: There is none, or it can't be read.
    """
    if jetpack_release() is not None:
        return Jetson()
    if unit == "processor":
        require_rapl()
        return Processor()
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise UnavailableError(
            f"telemetry: expected a Jetson, or NVML for an NVIDIA GPU ({error}); pip install nvidia-ml-py"
        ) from error
    return Nvml(nvml)


def open_sensors(unit: Unit) -> Source:
    """What tells power mode, clocks and temperature here, whether or not it measures power."""
    try:
        return open_source(unit)
    except UnavailableError:
        return Processor()
