"""OpenVINO on the CPU. The backend's name determines the precision of its arithmetic, which is checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from perceiver_runtime.backends.backend import Backend
from perceiver_runtime.backends.host import HostMemory, check_specs, overlapping_runs
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import BundleError, UnavailableError
from perceiver_runtime.format.external_data import addressed, inlined
from perceiver_runtime.machine import usable_cores
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensors import Array

try:
    import openvino
except ImportError as error:
    raise UnavailableError(
        f"backend openvino: the package is not installed ({error}); pip install 'perceiver-runtime[openvino]'"
    ) from error

from perceiver_runtime.backends.openvino_forms import improve

PRECISIONS = {"openvino": openvino.Type.f32, "openvino-bf16": openvino.Type.bf16}
"""Arithmetic of what the graph leaves in floating point. OpenVINO's own default is bfloat16 wherever a CPU has it."""
READS_ADDRESSES = tuple(map(int, openvino.__version__.split(".")[:2])) >= (2025, 4)
DTYPES = {
    "boolean": "bool",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
}


def shared_core() -> Any:
    """OpenVINO's entry point, one for the process and as long as it.

    Each one that compiles for the CPU gives its thread a stack for signal handlers, and restores the one before when it
    is deleted. Two that are not deleted in reverse order leave a stack that is freed: the next Ctrl-C is a crash.

    Raises UnavailableError in a process that was forked from one that had it: there it would wait for ever.
    """
    core, process = _core()
    if process != os.getpid():
        raise UnavailableError(
            "backend openvino: this process was forked from one that had used OpenVINO, whose threads do not follow a "
            "fork; start it by spawn (multiprocessing.get_context('spawn')), or use onnxruntime"
        )
    return core


@cache
def _core() -> tuple[Any, int]:
    """With the process that made it."""
    return openvino.Core(), os.getpid()


def open_backend(name: str, threads: int | None) -> Backend:
    """Open the backend. Raises UnavailableError if this processor can't compute in its precision."""
    backend = OpenVino(name, threads)
    backend.check_precision()
    return backend


class OpenVino:
    """Compiles models for the CPU, with one stream of `threads` threads each."""

    def __init__(self, name: str, threads: int | None) -> None:
        self.name = name
        self.device = HostMemory()
        self.concurrency = overlapping_runs(threads)
        self.versions: Mapping[str, str] = {"openvino": openvino.__version__.split("-")[0]}
        self._core = shared_core()
        self._precision = PRECISIONS[name]
        self._options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self._precision,
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            "ENABLE_CPU_PINNING": False,  # several components, and other programs, share the cores
        }

    def check_precision(self) -> None:
        """Refuse bfloat16 on processors without it: OpenVINO would silently compute in float32."""
        capable = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self._precision == openvino.Type.bf16 and "BF16" not in capable:
            raise UnavailableError(
                f"backend {self.name}: expected a processor with bfloat16 arithmetic, this one has "
                f"{', '.join(capable)}; use openvino"
            )

    def load(self, bundle: Bundle, component: ComponentEntry) -> Graph:
        """Compile one component and check its graph against the manifest."""
        path = bundle.file(component.onnx)
        try:
            model = self._model(bundle, component.onnx)
            inputs, outputs = _specs(model.inputs), _specs(model.outputs)
            improve(model, self._precision)
            compiled = self._core.compile_model(model, "CPU", self._options)
        except RuntimeError as error:
            raise BundleError(f"{path}: OpenVINO {openvino.__version__} can't load it: {error}") from error
        if (got := compiled.get_property("INFERENCE_PRECISION_HINT")) != self._precision:
            raise UnavailableError(f"backend {self.name}: expected arithmetic in {self._precision}, got {got}")
        check_specs(component.inputs, inputs, f"{path}: graph input")
        check_specs(component.outputs, outputs, f"{path}: graph output")
        return Graph(component, compiled)

    def _model(self, bundle: Bundle, onnx: str) -> Any:
        """Parse the graph from bytes; OpenVINO copies external weights from this process's memory if it can."""
        content = bundle.read(onnx)
        if not READS_ADDRESSES:
            return self._core.read_model(inlined(bundle, onnx, content))
        with addressed(bundle, onnx, content) as graph:
            return self._core.read_model(graph)


class Graph:
    """One component as a compiled model. A request runs one call at a time; idle requests are kept."""

    def __init__(self, component: ComponentEntry, compiled: Any) -> None:
        self.inputs = component.inputs
        self.outputs = component.outputs
        self._name = component.name
        self._compiled = compiled
        self._narrow = frozenset(p.any_name for p in compiled.outputs if p.element_type == openvino.Type.bf16)
        self._idle: list[Any] = []

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        """Bind the graph to arrays. The result keeps references to them."""
        given = {**inputs, **outputs}
        tensors = {n: openvino.Tensor(a, shared_memory=True) for n, a in given.items() if n not in self._narrow}
        narrow = {name: openvino.Tensor(openvino.Type.bf16, outputs[name].shape) for name in self._narrow}
        return partial(self._run, tensors | narrow, {name: outputs[name] for name in narrow})

    def _run(self, tensors: Mapping[str, Any], widened: Mapping[str, Array]) -> None:
        request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        try:
            for name, tensor in tensors.items():
                request.set_tensor(name, tensor)
            request.infer()
        except RuntimeError as error:
            raise BundleError(f"component {self._name}: OpenVINO failed: {error}") from error
        self._idle.append(request)
        for name, array in widened.items():
            _widen(tensors[name].data.view(np.uint16), array)


def _widen(bits: Array, into: Array) -> None:
    """Write bfloat16 numbers as float32, of which they are the upper half."""
    np.left_shift(bits, 16, out=into.view(np.uint32), dtype=np.uint32)


def _specs(ports: list[Any]) -> dict[str, tuple[str, list[int | None]]]:
    return {port.any_name: (_dtype(port), [_size(d) for d in port.partial_shape]) for port in ports}


def _dtype(port: Any) -> str:
    name: str = port.element_type.get_type_name()
    return DTYPES.get(name, name)


def _size(dimension: Any) -> int | None:
    return dimension.get_length() if dimension.is_static else None
