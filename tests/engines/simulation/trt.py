"""SIMULATION of TensorRT: same names, ONNX Runtime on host memory behind them. It says nothing about a real engine.

A simulated plan holds the ONNX model and its profiles. A context runs it through the raw addresses that it was given,
when the simulated stream gets there. Every public name is held against the real API of each version by a test.
"""

from __future__ import annotations

import json
import math
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from engines.simulation.cudart import SimulatedCuda
from engines.simulation.heap import SimulationError
from engines.simulation.order import Access, Work

import onnxruntime as ort

MAGIC = b"SIMULATED PLAN\n"


class DataType(IntEnum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4 = range(10)


class TensorIOMode(IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(IntEnum):
    DEVICE, HOST = range(2)


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(IntEnum):
    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


class BuilderFlag(IntEnum):
    TF32, VERSION_COMPATIBLE, EXCLUDE_LEAN_RUNTIME = range(3)


class LayerType(IntEnum):
    CONVOLUTION, MATRIX_MULTIPLY, SHUFFLE, CAST, IDENTITY, DEQUANTIZE, ATTENTION_OUTPUT, ELEMENTWISE = range(8)


class LayerInformationFormat(IntEnum):
    ONELINE, JSON = range(2)


TYPES = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.INT8: DataType.INT8,
    onnx.TensorProto.UINT8: DataType.UINT8,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.BOOL: DataType.BOOL,
}
NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.UINT8: np.uint8,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
}
LAYERS = {
    "MatMul": LayerType.MATRIX_MULTIPLY,
    "Gemm": LayerType.MATRIX_MULTIPLY,
    "Conv": LayerType.CONVOLUTION,
    "DequantizeLinear": LayerType.DEQUANTIZE,
    "Cast": LayerType.CAST,
    "Transpose": LayerType.SHUFFLE,
    "Reshape": LayerType.SHUFFLE,
}


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class ITensor:
    def __init__(self, name: str, dtype: DataType, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


class ILayer:
    def __init__(self, kind: LayerType, inputs: list[ITensor], outputs: list[ITensor]) -> None:
        self.type, self.num_outputs = kind, len(outputs)
        self._inputs, self._outputs = inputs, outputs

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class INetworkDefinition:
    def __init__(self) -> None:
        self._model: onnx.ModelProto | None = None
        self._inputs: list[ITensor] = []
        self._layers: list[ILayer] = []

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def _fill(self, model: onnx.ModelProto) -> None:
        self._model = model
        graph = onnx.shape_inference.infer_shapes(model).graph
        tensors = {v.name: _tensor(v) for v in (*graph.input, *graph.value_info, *graph.output)}
        for weight in graph.initializer:
            tensors[weight.name] = ITensor(weight.name, TYPES[weight.data_type], tuple(weight.dims))
        unknown = ITensor("", DataType.FLOAT, ())
        self._inputs = [tensors[v.name] for v in graph.input]
        self._layers = [
            ILayer(
                LAYERS.get(node.op_type, LayerType.ELEMENTWISE),
                [tensors.get(n, unknown) for n in node.input],
                [tensors.get(n, unknown) for n in node.output],
            )
            for node in graph.node
        ]


class ParserError:
    def __init__(self, text: str, operator: str) -> None:
        self._text, self._operator = text, operator

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return ""

    def node_operator(self) -> str:
        return self._operator


class OnnxParser:
    refused: tuple[str, ...] = ("DFT", "STFT")

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, list[ParserError]()

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes, path: str | None = None) -> bool:
        loaded = onnx.load_from_string(model)
        if path is not None:
            onnx.load_external_data_for_model(loaded, str(Path(path).parent))
        self._errors = [ParserError("no importer", n.op_type) for n in loaded.graph.node if n.op_type in self.refused]
        if not self._errors:
            self._network._fill(loaded)
        return not self._errors


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content or b"timings"

    def serialize(self) -> bytes:
        return self._content

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if input_cache._content not in self._content:
            self._content += input_cache._content
        return True


class IBuilderConfig:
    def __init__(self) -> None:
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.progress_monitor: IProgressMonitor | None = None
        self._flags = {BuilderFlag.TF32}
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None
        self._workspace = 0

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._workspace = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder:
    steps = 4

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        if not flags & (1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED):
            raise SimulationError("a network that is not strongly typed")
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        if (monitor := config.progress_monitor) is not None:
            monitor.phase_start("Building engine", None, self.steps)
            for step in range(self.steps):
                if not monitor.step_complete("Building engine", step):
                    self._logger.log(ILogger.Severity.ERROR, "build cancelled")
                    return None
            monitor.phase_finish("Building engine")
        assert network._model is not None
        header = {
            "profiles": [p._shapes for p in config._profiles],
            "flags": sorted(flag.name for flag in config._flags),
            "verbosity": config.profiling_verbosity.name,
            "workspace": config._workspace,
        }
        return MAGIC + json.dumps(header).encode() + b"\n" + network._model.SerializeToString(deterministic=True)


FORMATS = {
    DataType.FLOAT: "Row major linear FP32",
    DataType.HALF: "Row major linear FP16 format",
    DataType.INT8: "Row major Int8 format",
    DataType.INT32: "Row major linear INT32",
    DataType.INT64: "Row major linear Int64 format",
    DataType.BOOL: "Row major linear BOOL",
}
"""As the inspector describes a tensor."""


class EngineInspector:
    """An engine built at another verbosity than DETAILED tells no more than names."""

    def __init__(self, engine: ICudaEngine, detailed: bool) -> None:
        self._engine, self._detailed = engine, detailed
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        nodes = self._engine._model.graph.node
        layers = [self._layer(node) if self._detailed else node.name for node in nodes]
        return json.dumps({"Layers": layers, "Bindings": self._engine._names()})

    def _layer(self, node: onnx.NodeProto) -> dict[str, Any]:
        constants = {tensor.name for tensor in self._engine._model.graph.initializer}
        return {
            "Name": node.name or node.output[0],
            "LayerType": node.op_type,
            "Inputs": [self._tensor(name) for name in node.input if name not in constants],
            "Outputs": [self._tensor(name) for name in node.output],
            "ParameterType": node.op_type,
            "TacticValue": "0x0000000000000000",
        }

    def _tensor(self, name: str) -> dict[str, Any]:
        known, context = self._engine._tensors.get(name), self.execution_context
        shape = () if known is None else known.shape if context is None else context.get_tensor_shape(name)
        described = FORMATS[known.dtype if known is not None else DataType.FLOAT]
        return {"Name": name, "Location": "Device", "Dimensions": list(shape), "Format/Datatype": described}


class IProfiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class IExecutionContext:
    """Checks every address when the work runs, not when it is asked for."""

    def __init__(self, engine: ICudaEngine, strategy: ExecutionContextAllocationStrategy) -> None:
        self._engine, self._strategy = engine, strategy
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None
        self._profile = 0
        self.profiler: IProfiler | None = None

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        if not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            raise SimulationError(f"{name}: {shape} outside of the engine's profile {low} to {high}")
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine._names(TensorIOMode.INPUT) if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name] if name in self._shapes else self._output_shapes()[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory % 256 % 16:
            raise SimulationError(f"{name}: address {memory:#x} is not aligned")
        self._addresses[name] = memory
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 64 * sum(math.prod(shape) for shape in self._shapes.values())

    def set_device_memory(self, memory: int, size: int) -> None:
        if size < self.update_device_memory_size_for_shapes():
            raise SimulationError("scratch memory too small")
        self._scratch = (memory, size)

    def execute_async_v3(self, stream_handle: int) -> bool:
        unset = [n for n in self._engine._names() if n not in self._addresses]
        if unset or (self._strategy == ExecutionContextAllocationStrategy.USER_MANAGED and self._scratch is None):
            raise SimulationError(f"no address for {unset or 'scratch memory'}")
        self._engine._cuda.enqueue(stream_handle, Work(self._run, self._accesses(), "engine"))
        return True

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        feeds = {n: np.zeros(s, NUMPY[self._engine.get_tensor_dtype(n)]) for n, s in self._shapes.items()}
        names = self._engine._names(TensorIOMode.OUTPUT)
        return {n: a.shape for n, a in zip(names, self._engine._session.run(names, feeds), strict=True)}

    def _accesses(self) -> tuple[Access, ...]:
        """What a run reads and writes; scratch memory is written."""
        engine, shapes, found = self._engine, {**self._shapes, **self._output_shapes()}, []
        for name in engine._names():
            start, dtype = self._addresses[name], np.dtype(NUMPY[engine.get_tensor_dtype(name)])
            stop = start + math.prod(shapes[name]) * dtype.itemsize
            found.append(Access(start, stop, engine.get_tensor_mode(name) == TensorIOMode.OUTPUT))
        if self._scratch is not None:
            found.append(Access(self._scratch[0], sum(self._scratch), True))
        return tuple(found)

    def _run(self) -> None:
        engine, heap = self._engine, self._engine._cuda.heap
        binding, shapes = engine._session.io_binding(), {**self._shapes, **self._output_shapes()}
        for name in engine._names():
            dtype = np.dtype(NUMPY[engine.get_tensor_dtype(name)])
            heap.check(self._addresses[name], math.prod(shapes[name]) * dtype.itemsize, "device")
            bind = binding.bind_input if engine.get_tensor_mode(name) == TensorIOMode.INPUT else binding.bind_output
            bind(name, "cpu", 0, dtype.type, shapes[name], self._addresses[name])
        if self._scratch is not None:
            heap.check(*self._scratch, "device")
            # Scratch memory is shared: whatever lay there is gone after a run.
            np.ctypeslib.as_array((np.ctypeslib.ctypes.c_ubyte * self._scratch[1]).from_address(self._scratch[0]))[  # type: ignore[attr-defined]
                :
            ] = 7
        engine._session.run_with_iobinding(binding)
        if self.profiler is not None:
            for number, node in enumerate(engine._model.graph.node, 1):
                self.profiler.report_layer_time(node.name or node.output[0], 0.5 * number)


class ICudaEngine:
    def __init__(self, cuda: SimulatedCuda, header: dict[str, Any], model: onnx.ModelProto) -> None:
        self._cuda, self._model, self._header, self._profiles = cuda, model, header, header["profiles"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        graph = model.graph
        self._tensors = {v.name: _tensor(v) for v in (*graph.input, *graph.output)}
        self._inputs = {v.name for v in graph.input}
        self.num_io_tensors = len(self._tensors)
        self.num_optimization_profiles = max(1, len(self._profiles))

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Any:
        shape = list(self._tensors[name].shape)
        return self._profiles[profile_index].get(name, [shape] * 3) if self._profiles else [shape] * 3

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> IExecutionContext:
        return IExecutionContext(self, strategy)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self, self._header["verbosity"] == "DETAILED")

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 20

    def _names(self, mode: TensorIOMode | None = None) -> list[str]:
        return [name for name in self._tensors if mode is None or self.get_tensor_mode(name) == mode]


def simulated_tensorrt(cuda: SimulatedCuda, version: str = "10.3.0", name: str = "tensorrt") -> ModuleType:
    """A module that says it is this version, whose engines run on the given simulated device."""

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            if not serialized_engine.startswith(MAGIC):
                self._logger.log(ILogger.Severity.ERROR, "magicTag != MAGIC_TAG")
                return None
            header, model = serialized_engine[len(MAGIC) :].split(b"\n", 1)
            return ICudaEngine(cuda, json.loads(header), onnx.load_from_string(model))

    module = ModuleType(name)
    module.__dict__.update({n: v for n, v in globals().items() if isinstance(v, type) and v.__module__ == __name__})
    module.__dict__.update(__version__=version, Runtime=Runtime)
    return module


def _tensor(value: Any) -> ITensor:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return ITensor(value.name, TYPES[kind.elem_type], shape)
