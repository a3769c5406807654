"""ONNX Runtime on a GPU: graphs on the memory and the stream of one `CudaDevice`, captured as CUDA graphs.

ONNX Runtime has one stream for each of its sessions, so that all callers share the device and take turns. It captures
by itself: the first run with a new `gpu_graph_id` runs, captures and launches; later ones launch what was captured,
whatever they are bound to. Graphs, and what its libraries need, it keeps for each thread until the session ends.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from perceiver_runtime.backends.backend import Device, Executable, Priority
from perceiver_runtime.backends.onnxruntime import (
    GRAPHS_REFUSED,
    PROVIDERS,
    REMEDY,
    OnnxRuntime,
    check_provider,
    not_started,
)
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.cuda.arrays import CudaExchange
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.cuda.library import load_cudart
from perceiver_runtime.cuda.memory import DeviceBuffer
from perceiver_runtime.errors import BundleError, UnavailableError
from perceiver_runtime.manifest import ComponentEntry

import onnxruntime as ort

LOGGER = logging.getLogger(__name__)
KIND = "cuda"
MAX_GRAPHS = 64
"""CUDA graphs that a component captures: one for each set of buffers. ONNX Runtime never releases them."""
MAX_REASON = 200
MAX_FAILED = 3
"""Captures of a component that fail one after the other, until none is tried: its graph has what can't be captured."""
NO_GRAPH = -1
WARNS_OF_PLUGINS = (1, 31)
"""From this release, ONNX Runtime warns at each session of a missing plug-in for CUDA. Its level is the process's."""
OUT_OF_MEMORY = re.compile(r"out of memory|[Ff]ailed to allocate memory|CUDA failure 2\b")
IDENTITY = bytes.fromhex(
    "08073a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a"
    "08080112040a02080142040a00100d"
)
"""An ONNX graph of one node: `y = Identity(x)`, FP32, shape (1,), operator set 13."""
TURN = threading.RLock()
"""Held by whoever runs or loads: while ONNX Runtime captures, CUDA refuses allocations of the whole process."""


def open_backend(name: str, threads: int | None) -> OnnxRuntimeCuda:
    """The backend on this machine's GPU. Raises UnavailableError without onnxruntime-gpu, cuda-bindings or a GPU."""
    if hasattr(ort, "preload_dlls"):  # from 1.21: CUDA's libraries of NVIDIA's Python packages
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):  # of `--json`
            ort.preload_dlls()
        LOGGER.info("%s", printed.getvalue())
    check_provider(name)  # from 1.32, the provider is there if these are
    if tuple(map(int, ort.__version__.split(".")[:2])) >= WARNS_OF_PLUGINS:
        ort.set_default_logger_severity(3)
    device = CudaDevice(load_cudart("gpu"))
    check_start(name, device)
    return OnnxRuntimeCuda(name, threads, device)


def provider_options(device: CudaDevice) -> dict[str, str]:
    """Of the CUDA provider: the device's stream; FP32 as such, for TF32, its default, keeps 10 of 23 mantissa bits."""
    return {"device_id": str(device.index), "user_compute_stream": str(int(device.stream)), "use_tf32": "0"}


def check_start(name: str, device: CudaDevice) -> None:
    """Raise UnavailableError unless the provider starts: it is listed also where its libraries can't be loaded."""
    provider, options = PROVIDERS[name][0], ort.SessionOptions()
    options.log_severity_level = 3
    try:
        with TURN:
            started = [(provider, provider_options(device))]
            session = ort.InferenceSession(IDENTITY, options, providers=started, enable_fallback=0)
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise UnavailableError(f"backend {name}: {provider} did not start: {error}; {REMEDY[name]}") from error
    if session.get_providers()[0] != provider:
        raise not_started(name, session)


class OnnxRuntimeCuda(OnnxRuntime):
    """Opens ONNX Runtime sessions on one stream."""

    device: CudaDevice

    def __init__(self, name: str, threads: int | None, device: CudaDevice) -> None:
        super().__init__(name, threads, device)
        self.concurrency = 1
        self.turn = TURN
        self._places = Places()

    def load(self, bundle: Bundle, component: ComponentEntry) -> Executable:
        """Create the session of one component, with CUDA graphs unless ONNX Runtime refuses, and check its graph."""
        with TURN:
            return self._load(bundle, component)

    def _load(self, bundle: Bundle, component: ComponentEntry) -> DeviceGraph:
        try:
            session, graphs = self._on_stream(bundle, component, {"enable_cuda_graph": "1"}), MAX_GRAPHS
        except BundleError as error:
            if OUT_OF_MEMORY.search(str(error)):
                raise UnavailableError(f"{error}; free device memory, or use a smaller model") from error
            if GRAPHS_REFUSED not in str(error):
                raise
            LOGGER.warning("component %s runs without CUDA graphs: %s", component.name, error)
            session, graphs = self._on_stream(bundle, component, {}), 0
        self._check(bundle, component, session)
        return DeviceGraph(component, session, self.device, self._places, graphs)

    def limit_memory(self, nbytes: int) -> None:
        """Limit the device memory of buffers in bytes; ONNX Runtime's own and CUDA's are not counted."""
        self.device.budget.limit = nbytes

    def open_device(self, priority: Priority) -> CudaDevice:
        """The device: there is one stream."""
        del priority
        return self.device

    def exchange(self, device: Device, stream: Any) -> CudaExchange:
        """Arrays in and out of the stream."""
        assert isinstance(device, CudaDevice)  # for mypy
        return CudaExchange(device, stream)

    def _on_stream(self, bundle: Bundle, component: ComponentEntry, graphs: Mapping[str, str]) -> Any:
        options = self._options(component, {})
        if graphs:  # a pattern is allocated in the second run, which is the one that is captured
            options.enable_mem_pattern = False
        provider = {**provider_options(self.device), **graphs}
        return self._open(bundle, component, bundle.read(component.onnx), options, provider)


class Places:
    """Threads in which ONNX Runtime runs: the first that asked, and one for all others, so that they stay two."""

    def __init__(self) -> None:
        self._first: threading.Thread | None = None
        self._other = ThreadPoolExecutor(1, "onnxruntime-cuda")

    def call(self, run: Callable[[int], None]) -> None:
        """Call with the place, 0 or 1. Only one thread calls at a time."""
        thread = threading.current_thread()
        self._first = thread if self._first is None else self._first
        if thread is self._first:
            run(0)
            return
        future = self._other.submit(run, 1)
        try:
            future.result()
        except BaseException:
            wait((future,))  # interrupted: its buffers are in use
            raise


class DeviceGraph:
    """One component as an ONNX Runtime session on a stream, with the number of CUDA graphs that it may capture."""

    def __init__(
        self, component: ComponentEntry, session: Any, device: CudaDevice, places: Places, graphs: int
    ) -> None:
        self.session = session  # before the device: its stream must outlive the session
        self.device, self.places = device, places
        self.inputs, self.outputs, self.name = component.inputs, component.outputs, component.name
        self._graphs, self._captured, self._failed = graphs, 0, 0

    def bind(self, inputs: Mapping[str, DeviceBuffer], outputs: Mapping[str, DeviceBuffer]) -> Callable[[], None]:
        """Bind the graph to buffers. The result keeps references to them."""
        return DeviceBound(self, inputs, outputs).run

    def next_capture(self) -> Any:
        """Options of a run that captures the next CUDA graph; None beyond the limit."""
        if self._captured >= self._graphs:
            if self._graphs:  # said once
                full = "component %s has %d CUDA graphs, as many as it may capture: further sizes run without"
                LOGGER.warning(full, self.name, self._graphs)
                self._graphs = 0
            return None
        self._captured += 1
        return run_options(self._captured)

    def was_captured(self, error: BundleError | None) -> None:
        """Count captures that fail, and say so: by another library's allocation, or each time."""
        self._failed = 0 if error is None else self._failed + 1
        if error is None:
            return
        if self._failed == MAX_FAILED:
            self._graphs = 0
        reason = str(error).partition("\n")[0][-MAX_REASON:]  # its end: what CUDA said
        LOGGER.warning("component %s runs without a CUDA graph on these buffers: ...%s", self.name, reason)


class DeviceBound:
    """A graph's session on buffers. Its first run in each place captures a CUDA graph, later ones launch it."""

    def __init__(
        self, graph: DeviceGraph, inputs: Mapping[str, DeviceBuffer], outputs: Mapping[str, DeviceBuffer]
    ) -> None:
        self._binding = binding = graph.session.io_binding()
        self._graph, self._held = graph, (inputs, outputs)
        self._options: dict[int, Any] = {}
        for bind, buffers in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, buffer in buffers.items():
                bind(name, KIND, buffer.device.index, buffer.dtype.type, buffer.shape, buffer.address)

    def run(self) -> None:
        """Put one run on the stream."""
        self._graph.places.call(self._run)

    def _run(self, place: int) -> None:
        if (options := self._options.get(place)) is not None:
            self._launch(options)
            return
        options = self._graph.next_capture()
        if captured := options is not None and self._capture(options):
            self._options[place] = options
        else:
            self._options[place] = run_options(NO_GRAPH)
            self._launch(self._options[place])
        self._graph.device.captured.append(captured)

    def _launch(self, options: Any) -> None:
        try:
            self._graph.session.run_with_iobinding(self._binding, options)
        except Exception as error:  # onnxruntime's errors share no base class below Exception
            self._graph.device.check()
            if OUT_OF_MEMORY.search(str(error)):
                self._graph.device.leave_capture()
                raise UnavailableError(
                    f"component {self._graph.name}: device memory: ONNX Runtime could not allocate what it needs; use "
                    f"smaller batches or chunks, or free device memory ({error})"
                ) from error
            raise BundleError(f"component {self._graph.name}: onnxruntime failed: {error}") from error

    def _capture(self, options: Any) -> bool:
        """Whether the run was captured; if not, it has to run again."""
        failure = None
        try:
            self._launch(options)
        except BundleError as error:
            self._graph.device.leave_capture()
            failure = error
        self._graph.was_captured(failure)
        return failure is None


def run_options(graph: int) -> Any:
    """Options of a run that does not wait for the GPU, with the number of its CUDA graph."""
    options = ort.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options
