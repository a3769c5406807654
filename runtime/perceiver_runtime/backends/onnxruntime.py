"""ONNX Runtime: graphs on host memory, bound once per execution plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from perceiver_runtime.backends.backend import Backend, Buffer, Device, Executable
from perceiver_runtime.backends.host import HostMemory, check_specs, overlapping_runs
from perceiver_runtime.backends.versions import refusal
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import INSTALL_ONNXRUNTIME, BundleError, PerceiverError, UnavailableError
from perceiver_runtime.format.external_data import external_files, inlined, linked
from perceiver_runtime.manifest import ComponentEntry

try:
    import onnxruntime as ort
except ImportError as error:
    raise UnavailableError(
        f"backend onnxruntime: the package is not installed ({error}); {INSTALL_ONNXRUNTIME}"
    ) from error

from perceiver_runtime.backends.integer_products import avoid_saturation

LOGGER = logging.getLogger(__name__)
QUICK = "onnxruntime-quick"
FROM_MEMORY = "add_external_initializers_from_files_in_memory"
"""The method by which ONNX Runtime, from 1.26 or before, copies external weights out of memory."""
PROVIDERS = {
    QUICK: ("CPUExecutionProvider",),
    "onnxruntime": ("CPUExecutionProvider",),
    "onnxruntime-exact": ("CPUExecutionProvider",),
    "onnxruntime-cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "onnxruntime-tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    "onnxruntime-rtx": ("NvTensorRTRTXExecutionProvider", "CPUExecutionProvider"),
}
REMEDY = {
    "onnxruntime": "reinstall onnxruntime",
    "onnxruntime-exact": "reinstall onnxruntime",
    QUICK: "reinstall onnxruntime",
    "onnxruntime-cuda": "on a machine with an NVIDIA GPU, `pip uninstall onnxruntime`, then "
    "`pip install 'onnxruntime-gpu[cuda,cudnn]' cuda-bindings`",
    "onnxruntime-tensorrt": "install onnxruntime-gpu and tensorrt, on a machine with an NVIDIA GPU",
    "onnxruntime-rtx": "install onnxruntime-ep-nv-tensorrt-rtx and its onnxruntime, on a machine with an RTX GPU",
}
ENTRIES = {
    # Quantised products as the graph defines them, in floating point: what a GPU computes. Without VNNI, a processor's
    # own kernels for signed integers saturate in 16 bits, which can double a TensorRT bundle's error.
    "onnxruntime-exact": {"session.disable_quant_qdq": "1"},
    # Reordering the weights for the processor's kernels is nearly all of a large model's start: answer without, from
    # weights that are mapped and not copied, until it is done in the background.
    QUICK: {"session.disable_prepacking": "1"},
}
GRAPHS_REFUSED = "graph capture"
"""What ONNX Runtime says when a session can't be opened with CUDA graphs, among other words."""
MAX_PATTERN_FLOPS = 10**9
"""FLOPs of a graph below which the time of allocations is worth saving by memory patterns."""
DTYPES = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


def open_backend(name: str, threads: int | None) -> Backend:
    """Open the backend. Raises UnavailableError if the installed onnxruntime lacks its execution provider."""
    check_provider(name)
    return OnnxRuntime(name, threads, HostMemory())


def check_provider(name: str) -> None:
    """Raise UnavailableError if the installed onnxruntime lacks a backend's execution provider."""
    provider, available = PROVIDERS[name][0], ort.get_available_providers()
    if provider not in available:
        raise UnavailableError(
            f"backend {name}: expected {provider}, this onnxruntime has {', '.join(available)}; {REMEDY[name]}"
        )


def not_started(name: str, session: Any) -> UnavailableError:
    """The error for a provider that ONNX Runtime lists, and did not start."""
    return UnavailableError(
        f"backend {name}: {PROVIDERS[name][0]} did not start, got {session.get_providers()[0]}; {REMEDY[name]}"
    )


class OnnxRuntime:
    """Opens ONNX Runtime sessions with one set of options."""

    def __init__(self, name: str, threads: int | None, device: Device) -> None:
        self.name = name
        self.device = device
        self.concurrency = overlapping_runs(threads)
        self.versions: Mapping[str, str] = {"onnxruntime": ort.__version__}
        self._threads = threads
        self._packing = ThreadPoolExecutor(1) if name == QUICK else None

    def load(self, bundle: Bundle, component: ComponentEntry) -> Executable:
        """Create the session of one component and check its graph against the manifest."""
        content = bundle.read(component.onnx)
        options = self._options(component, ENTRIES.get(self.name, {}))
        session = self._open(bundle, component, content, options)
        self._check(bundle, component, session)
        later = None
        if self._packing is not None:
            later = self._packing.submit(self._open, bundle, component, content, self._options(component, {}))
        return Graph(component, session, later)

    def _check(self, bundle: Bundle, component: ComponentEntry, session: Any) -> None:
        """Compare a session's graph with the manifest."""
        path = bundle.file(component.onnx)
        try:
            inputs, outputs = _specs(session.get_inputs()), _specs(session.get_outputs())
        except UnicodeDecodeError as error:
            raise BundleError(f"{path}: expected names in UTF-8: {error}; export again") from error
        check_specs(component.inputs, inputs, f"{path}: graph input")
        check_specs(component.outputs, outputs, f"{path}: graph output")

    def _open(
        self,
        bundle: Bundle,
        component: ComponentEntry,
        content: bytes,
        options: Any,
        provider: Mapping[str, str] | None = None,
    ) -> Any:
        """A session; `provider` are options of the first provider."""
        first, *others = PROVIDERS[self.name]
        try:
            session = self._session(bundle, component.onnx, content, options, [(first, dict(provider or {})), *others])
        except PerceiverError:
            raise
        except Exception as error:  # onnxruntime's errors share no base class below Exception
            raise refusal(bundle.file(component.onnx), ort.__version__, error) from error
        if session.get_providers()[0] != PROVIDERS[self.name][0]:
            raise not_started(self.name, session)
        return session

    def _session(self, bundle: Bundle, onnx: str, content: bytes, options: Any, providers: list[Any]) -> Any:
        """From bytes, with the external weights mapped; copied where they are to be, or can't be mapped any more.

        Deleted files can't be mapped, nor does ONNX Runtime before 1.23 map any that a graph in memory names.
        """
        if not bundle.copy_weights:
            with linked(bundle, onnx, content) as graph:
                options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/")
                try:
                    return ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
                except Exception as error:
                    if graph is content or GRAPHS_REFUSED in str(error):
                        raise
                    LOGGER.info("%s: weights are copied, for they can't be mapped: %s", bundle.file(onnx), error)
        if not hasattr(options, FROM_MEMORY):
            return ort.InferenceSession(inlined(bundle, onnx, content), options, providers=providers, enable_fallback=0)
        if files := external_files(bundle, onnx, content):
            getattr(options, FROM_MEMORY)(list(files), list(files.values()), [len(file) for file in files.values()])
        return ort.InferenceSession(content, options, providers=providers, enable_fallback=0)

    def _options(self, component: ComponentEntry, entries: Mapping[str, str]) -> Any:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        # Each component has its own threads. Those that spin while they wait take the cores from the next component,
        # and from whatever else the device runs: on busy cores a run takes many times longer.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if component.precision.startswith("int8"):
            avoid_saturation(options)
        # A pattern is one block for all that a graph's first run allocated separately. Those allocations remain: from
        # the second run on that is up to twice the memory, for some microseconds.
        options.enable_mem_pattern = component.flops < MAX_PATTERN_FLOPS
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        return options


class Graph:
    """One component as an ONNX Runtime session; replaced by `later` when its background load finishes."""

    def __init__(self, component: ComponentEntry, session: Any, later: Future[Any] | None = None) -> None:
        self.inputs = component.inputs
        self.outputs = component.outputs
        self.name = component.name
        self._session = session
        self._later = later

    def session(self) -> Any:
        """The session to run."""
        later = self._later
        if later is not None and later.done():
            self._session = later.result()
            self._later = None
        return self._session

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind the graph to buffers. The result keeps references to them."""
        return Bound(self, inputs, outputs).run


class Bound:
    """A graph's session on buffers; bound again if the session is replaced."""

    def __init__(self, graph: Graph, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        self._graph, self._inputs, self._outputs = graph, inputs, outputs
        self._bind(graph.session())

    def run(self) -> None:
        """Run the graph once."""
        session = self._graph.session()
        if session is not self._session:
            self._bind(session)
        try:
            session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime's errors share no base class below Exception
            raise BundleError(f"component {self._graph.name}: onnxruntime failed: {error}") from error

    def _bind(self, session: Any) -> None:
        binding = session.io_binding()
        for name, buffer in self._inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(buffer))
        for name, buffer in self._outputs.items():
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(buffer))
        self._session, self._binding = session, binding


def _specs(nodes: list[Any]) -> dict[str, tuple[str, list[int | str | None]]]:
    return {node.name: (DTYPES.get(node.type, node.type), node.shape) for node in nodes}
