"""Layers of engines and the time that each takes, as the files that NVIDIA's engine explorer (trex) opens.

`<component>.graph.json` is what `trtexec --exportLayerInfo` writes at detailed verbosity,
`<component>.profile.json` what its `--exportProfile` writes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.format import strict_json
from perceiver_runtime.format.outputs import replacing
from perceiver_runtime.golden import load_golden
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.progress import track
from perceiver_runtime.tensorrt.backend import TensorRT
from perceiver_runtime.tensorrt.trial import buffers_of
from perceiver_runtime.tensors import Array

WARMUP = 3


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds of one layer in each run. Two layers can have the same name."""

    name: str
    milliseconds: list[float]


@dataclass(frozen=True)
class EngineLayers:
    """One engine: TensorRT's JSON of its layers, and the times of those that ran, in order of execution."""

    component: str
    layers: str
    times: Sequence[LayerTimes]

    def profile(self) -> list[dict[str, Any]]:
        """The records of `trtexec --exportProfile`: the number of runs, then the layers."""
        total = sum(sum(layer.milliseconds) for layer in self.times) or 1.0
        layers = (
            {
                "name": layer.name,
                "timeMs": sum(layer.milliseconds),
                "averageMs": statistics.fmean(layer.milliseconds),
                "medianMs": statistics.median(layer.milliseconds),
                "percentage": 100 * sum(layer.milliseconds) / total,
            }
            for layer in self.times
        )
        return [{"count": max((len(layer.milliseconds) for layer in self.times), default=0)}, *layers]

    @property
    def milliseconds(self) -> float:
        """Medians of all layers, added up."""
        return sum(statistics.median(layer.milliseconds) for layer in self.times)


def write_layers(bundle: Bundle, backend: TensorRT, directory: Path, runs: int = 20) -> Iterator[EngineLayers]:
    """Run each engine on the inputs of the golden sample, and write both files of each.

    Layers are timed by TensorRT's profiler, without CUDA graphs: their sum is more than the latency of a session.

    Args:
        bundle: Bundle with engines for this machine.
        backend: TensorRT on this machine.
        directory: Where the files go; it is created.
        runs: Timed runs of each engine.

    Raises:
        UnavailableError: An engine does not fit this machine.
        BundleError: An engine or the golden sample is damaged.
    """
    calls = load_golden(bundle)[0].components
    directory.mkdir(parents=True, exist_ok=True)
    for entry in track(bundle.manifest.components, "layers"):
        made = time_layers(bundle, backend, entry, calls[entry.name].inputs, runs)
        for suffix, content in (("graph", made.layers), ("profile", strict_json.dumps(made.profile(), indent=1))):
            with replacing(directory / f"{entry.name}.{suffix}.json") as partial:
                partial.write_text(content + "\n", encoding="utf-8")
        yield made


def time_layers(
    bundle: Bundle, backend: TensorRT, entry: ComponentEntry, feeds: Mapping[str, Array], runs: int
) -> EngineLayers:
    """Time the layers of one engine on inputs in host memory. Raises what `TensorRT.load` raises."""
    device: CudaDevice = backend.device
    clock = LayerClock()
    inputs, outputs = buffers_of(device, entry, feeds)
    engine = backend.load(bundle, entry)
    bound = engine.bind(inputs, outputs, layer_profiler(backend.trt, clock))
    for run in range(WARMUP + runs):
        clock.begin(keep=run > WARMUP)
        bound()
        device.synchronize()
    return EngineLayers(entry.name, engine.layers(bound), clock.times)


class LayerClock:
    """Keeps what a profiler reports, in the order of execution, which is the same in each run."""

    def __init__(self) -> None:
        self.times: list[LayerTimes] = []
        self._position = 0

    def begin(self, *, keep: bool) -> None:
        """Start a run; forget the runs before it unless they are kept."""
        self.times = self.times if keep else []
        self._position = 0

    def add(self, name: str, milliseconds: float) -> None:
        """Take the time of the next layer."""
        if self._position == len(self.times):
            self.times.append(LayerTimes(name, []))
        self.times[self._position].milliseconds.append(milliseconds)
        self._position += 1


def layer_profiler(trt: ModuleType, clock: LayerClock) -> Any:
    """An IProfiler that reports to a clock."""

    class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            clock.add(layer_name, float(ms))

    return Profiler()
