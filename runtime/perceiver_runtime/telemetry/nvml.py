"""A desktop or data-centre GPU through NVML (`pip install nvidia-ml-py`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.telemetry.sample import Sample

_REASONS = {
    "nvmlClocksEventReasonSwPowerCap": "power cap",
    "nvmlClocksEventReasonSwThermalSlowdown": "thermal (software)",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "thermal (hardware)",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
}


class Nvml:
    """Samples of one GPU. `nvml` is the module `pynvml`. Raises UnavailableError without a driver."""

    def __init__(self, nvml: Any, index: int = 0) -> None:
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            self._device = nvml.nvmlDeviceGetHandleByIndex(index)
            name, driver = nvml.nvmlDeviceGetName(self._device), nvml.nvmlSystemGetDriverVersion()
        except nvml.NVMLError as error:
            raise UnavailableError(f"NVML: expected an NVIDIA driver, got {error}; check `nvidia-smi`") from error
        limit = self._ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(self._device))
        self.power_mode = None if limit is None else f"limit {limit / 1000:.0f} W"
        self.description = f"{name}, driver {driver}"

    def sample(self) -> Sample:
        """Read all values once; values that the GPU does not support are omitted."""
        nvml, device = self._nvml, self._device
        power = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(device))
        celsius = self._ask(lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU))
        clock = self._ask(lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM))
        rates = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(device))
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(device))
        energy = self._ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(device))
        watts = None if power is None else power / 1000
        return Sample(
            time=time.monotonic(),
            power={} if watts is None else {"board": watts},
            total_power=watts,
            energy=None if energy is None else energy / 1000,
            temperature={} if celsius is None else {"gpu": float(celsius)},
            clock={} if clock is None else {"gpu": clock * 1e6},
            utilisation=None if rates is None else rates.gpu / 100,
            memory_used=None if memory is None else memory.used,
            memory_total=None if memory is None else memory.total,
            throttled=self._throttled(),
        )

    def compute_capability(self) -> str | None:
        """Such as `8.9`."""
        found = self._ask(lambda: self._nvml.nvmlDeviceGetCudaComputeCapability(self._device))
        return None if found is None else ".".join(map(str, found))

    def _throttled(self) -> tuple[str, ...]:
        bits = self._ask(lambda: self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._device)) or 0
        return tuple(reason for name, reason in _REASONS.items() if bits & getattr(self._nvml, name))

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The result of a query, or None if this GPU does not support it."""
        try:
            return question()
        except self._nvml.NVMLError:
            return None
