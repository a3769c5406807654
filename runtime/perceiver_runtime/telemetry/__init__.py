"""Power, clocks, temperature and memory of the device while something runs: a Jetson's sensors, or NVML."""

from perceiver_runtime.telemetry.recorder import Recording, Summary, record
from perceiver_runtime.telemetry.sample import Sample, Source
from perceiver_runtime.telemetry.sources import open_source

__all__ = ["Recording", "Sample", "Source", "Summary", "open_source", "record"]
