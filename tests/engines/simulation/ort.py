"""SIMULATION of ONNX Runtime's CUDA provider: its CPU provider on the memory and the streams of the simulated device.

As in ONNX Runtime, a session has one stream, a captured graph belongs to a thread and launches on the memory that it
was captured with, and a failed capture leaves the stream in capture mode.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from engines.simulation.cudart import SimulatedCuda
from engines.simulation.heap import SimulationError
from engines.simulation.order import Access, Work

from perceiver_runtime.backends import onnxruntime as host
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.cuda import onnxruntime as backend
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.execution.session import Session

import onnxruntime as ort

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]


class RefusedError(Exception):
    """What ONNX Runtime raises."""


@dataclass
class SimulatedOrt:
    """A GPU that ONNX Runtime uses. The components in `foreign` have nodes on the processor; what fails is said."""

    cuda: SimulatedCuda
    foreign: bool = False
    failing: bool = False
    failing_captures: bool = False
    sessions: list[SimulatedSession] = field(default_factory=list)

    def build(self, path: Path) -> Path:
        """The bundle as it is."""
        return path

    def backend(self) -> backend.OnnxRuntimeCuda:
        """The backend on this device."""
        return backend.OnnxRuntimeCuda("onnxruntime-cuda", 1, CudaDevice(self.cuda))

    def open(self, path: Path, **options: Any) -> Session:
        """A session on this device, for several callers."""
        return Session(load_bundle(path), self.backend(), **{"callers": 4, **options})

    @property
    def captured(self) -> int:
        """Captured graphs of all sessions."""
        return sum(len(session.graphs) for session in self.sessions)


class Binding:
    """Addresses by name."""

    def __init__(self) -> None:
        self.inputs: dict[str, tuple[Any, ...]] = {}
        self.outputs: dict[str, tuple[Any, ...]] = {}

    def bind_input(self, name: str, kind: str, index: int, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        self.inputs[name] = self._checked(kind, index, dtype, shape, address)

    def bind_output(self, name: str, kind: str, index: int, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        self.outputs[name] = self._checked(kind, index, dtype, shape, address)

    def _checked(self, kind: str, index: int, dtype: Any, shape: tuple[int, ...], address: int) -> tuple[Any, ...]:
        if (kind, index) != ("cuda", 0):
            raise SimulationError(f"bound to {kind} {index}")
        return dtype, shape, address


class SimulatedSession:
    """A session on a stream; `graphs` are what it captured, by thread and number."""

    def __init__(self, gpu: SimulatedOrt, model: Any, options: Any, providers: list[Any]) -> None:
        settings = providers[0][1]
        self.capturing = settings.get("enable_cuda_graph") == "1"
        if settings.get("use_tf32") != "0":
            raise SimulationError(f"FP32 would be computed in TF32: {settings}")
        if unknown := set(settings) - {"device_id", "user_compute_stream", "enable_cuda_graph", "use_tf32"}:
            raise SimulationError(f"unknown options: {unknown}")
        if self.capturing and gpu.foreign:
            raise RefusedError("This session cannot use the graph capture feature as requested by the user")
        if self.capturing and options.enable_mem_pattern:
            raise SimulationError("a pattern would be allocated while a graph is captured")
        self.stream = int(settings["user_compute_stream"])
        self.graphs: dict[tuple[int, int], int] = {}
        self._gpu, self._running = gpu, threading.Lock()
        self._session = ort.InferenceSession(model, options, providers=PROVIDERS[1:])
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs
        gpu.sessions.append(self)

    def get_providers(self) -> list[str]:
        return PROVIDERS

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        if options.get_run_config_entry("disable_synchronize_execution_providers") != "1":
            raise SimulationError("a run that waits for the device")
        if not self._running.acquire(blocking=False):
            raise SimulationError("two threads in one session")
        try:
            self._run(binding, int(options.get_run_config_entry("gpu_graph_id")))
        finally:
            self._running.release()

    def _run(self, binding: Binding, graph: int) -> None:
        cuda, key = self._gpu.cuda, (threading.get_ident(), graph)
        if self._gpu.failing:
            raise RefusedError("Non-zero status code returned while running MatMul node")
        if self.capturing and graph >= 0 and key in self.graphs:
            cuda.cudaGraphLaunch(self.graphs[key], self.stream)
            return
        work = Work(lambda: self._compute(binding), _accesses(binding), "graph")
        cuda.enqueue(self.stream, work)
        if self.capturing and graph >= 0:
            self._capture(key, work)

    def _capture(self, key: tuple[int, int], work: Work) -> None:
        cuda = self._gpu.cuda
        cuda.cudaStreamBeginCapture(self.stream, 0)
        if self._gpu.failing_captures:
            raise RefusedError("CUDA failure 900: operation not permitted when stream is capturing")
        time.sleep(0.001)
        cuda.enqueue(self.stream, work)
        graph = cuda.cudaStreamEndCapture(self.stream)[1]
        if cuda._graphs[graph] != [work]:
            raise SimulationError("work of others was captured")
        self.graphs[key] = cuda.cudaGraphInstantiate(graph, 0)[1]
        cuda.cudaGraphLaunch(self.graphs[key], self.stream)

    def _compute(self, binding: Binding) -> None:
        real = self._session.io_binding()
        for bind, bound in ((real.bind_input, binding.inputs), (real.bind_output, binding.outputs)):
            for name, (dtype, shape, address) in bound.items():
                self._gpu.cuda.heap.check(address, _size(dtype, shape), "device")
                bind(name, "cpu", 0, dtype, shape, address)
        self._session.run_with_iobinding(real)


def simulated_ort(patch: pytest.MonkeyPatch, cuda: SimulatedCuda | None = None) -> SimulatedOrt:
    """A device that the backend sees instead of ONNX Runtime's."""
    gpu = SimulatedOrt(SimulatedCuda() if cuda is None else cuda)

    def opened(model: Any, options: Any, providers: list[Any], enable_fallback: int) -> Any:
        if enable_fallback:
            raise SimulationError("ONNX Runtime would go on with another provider, and print so")
        on_device = providers[0][0] == PROVIDERS[0]
        kind = SimulatedSession if on_device else lambda _, *given: ort.InferenceSession(*given)
        return kind(gpu, model, options, providers)

    module = ModuleType("onnxruntime")
    module.__dict__.update(vars(ort))
    module.__dict__.update(
        InferenceSession=opened,
        get_available_providers=lambda: PROVIDERS,
    )
    for user in (host, backend):
        patch.setattr(user, "ort", module)
    return gpu


def _size(dtype: Any, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _accesses(binding: Binding) -> tuple[Access, ...]:
    return tuple(
        Access(address, address + _size(dtype, shape), write)
        for write, bound in ((False, binding.inputs), (True, binding.outputs))
        for dtype, shape, address in bound.values()
    )
