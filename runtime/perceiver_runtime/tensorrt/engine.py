"""Run one engine: check its tensors against the manifest, and bind buffers so that a call is one launch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.cuda.memory import DeviceBuffer, Handle
from perceiver_runtime.errors import BundleError, FeedError, UnavailableError
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensorrt.api import ICudaEngine, IExecutionContext, IProfiler, IRuntimeConfig
from perceiver_runtime.tensorrt.dialect import Dialect
from perceiver_runtime.tensorrt.inspection import layers_of
from perceiver_runtime.tensors import TensorSpec

LOGGER = logging.getLogger("perceiver_runtime.tensorrt")
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class Engine:
    """The executable of one component. Each binding has a context on the stream of its buffers; weights are shared."""

    def __init__(
        self,
        trt: ModuleType,
        rules: Dialect,
        engine: ICudaEngine,
        component: ComponentEntry,
    ) -> None:
        self.inputs = component.inputs
        self.outputs = component.outputs
        self._trt, self._rules, self._name = trt, rules, component.name
        self._engine: ICudaEngine = engine
        self._lock = threading.Lock()
        _check_tensors(trt, engine, component)

    def bind(
        self, inputs: Mapping[str, DeviceBuffer], outputs: Mapping[str, DeviceBuffer], profiler: IProfiler = None
    ) -> BoundEngine:
        """A context for these buffers' shapes and addresses. Raises FeedError for shapes outside of every profile.

        With a profiler, which is told the time of each layer, calls run without CUDA graphs.
        """
        device: CudaDevice = next(iter((*inputs.values(), *outputs.values()))).device
        with self._lock:  # contexts may run, but not be made, at the same time
            context: IExecutionContext = self._context(graphs=profiler is None)
        if profiler is not None:
            context.profiler = profiler
        if self._rules.context_graphs:  # TensorRT captures them itself
            device.captured.append(profiler is None)
        profile = self._profile({name: buffer.shape for name, buffer in inputs.items()})
        if profile:
            context.set_optimization_profile_async(profile, int(device.stream))
        for name, buffer in inputs.items():
            context.set_input_shape(name, buffer.shape)
        if unset := context.infer_shapes():
            raise BundleError(
                f"component {self._name}: the engine lacks the shapes of {', '.join(unset)}; build it again"
            )
        held = {**inputs, **outputs, **self._unwanted(device, context, outputs)}
        for name, buffer in held.items():
            context.set_tensor_address(name, buffer.address)
        scratch = device.scratch(size := context.update_device_memory_size_for_shapes())
        context.set_device_memory(int(scratch.value), size)
        capture = profiler is None and not self._rules.context_graphs
        return BoundEngine(self._name, context, device, capture, (tuple(held.values()), scratch))

    def layers(self, bound: BoundEngine) -> str:
        """TensorRT's JSON of the layers at the shapes of a context."""
        return layers_of(self._trt, self._engine, bound.context)

    def _context(self, *, graphs: bool) -> IExecutionContext:
        trt = self._trt
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._rules.context_graphs:
            config: IRuntimeConfig = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            strategies = trt.CudaGraphStrategy
            config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if graphs else strategies.DISABLED
            return self._engine.create_execution_context(config)
        return self._engine.create_execution_context(strategy)

    def _profile(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        for index in range(self._engine.num_optimization_profiles):
            if all(_within(shape, self._engine.get_tensor_profile_shape(n, index)) for n, shape in shapes.items()):
                return index
        ranges = [
            f"{n}: {[tuple(b) for b in self._engine.get_tensor_profile_shape(n, 0)]}, got {list(s)}"
            for n, s in shapes.items()
        ]
        raise FeedError(f"component {self._name}: no profile of its engine takes these shapes: {'; '.join(ranges)}")

    def _unwanted(
        self, device: CudaDevice, context: IExecutionContext, outputs: Mapping[str, DeviceBuffer]
    ) -> dict[str, DeviceBuffer]:
        """Memory for outputs that nothing reads: an engine writes all of them."""
        return {
            spec.name: device.allocate(tuple(context.get_tensor_shape(spec.name)), spec.dtype)
            for spec in self.outputs
            if spec.name not in outputs
        }


class BoundEngine:
    """An engine on one set of buffers. The first call enqueues it, later calls launch the CUDA graph captured from it.

    The first call runs on real data, so that no uninitialised index is read, and finishes lazy initialisation before
    the capture. If TensorRT captures graphs itself, or the engine can't be captured, every call enqueues it.
    """

    def __init__(self, name: str, context: IExecutionContext, device: CudaDevice, capture: bool, held: Any) -> None:
        self._name = name
        self.context: IExecutionContext = context
        self._device = device
        self._held = held
        self._capture = capture
        self.graph: Handle | None = None

    def __call__(self) -> None:
        """Put one run on the stream."""
        if self.graph is not None:
            self._device.launch(self.graph)
            return
        self._enqueue()
        if self._capture:
            self._capture = False
            self.graph = self._captured()
            self._device.captured.append(self.graph is not None)

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(int(self._device.stream)):
            self._device.check()
            raise BundleError(
                f"component {self._name}: TensorRT refused to run it; see its log (perceiver_runtime.tensorrt)"
            )

    def _captured(self) -> Handle | None:
        try:
            return self._device.capture(self._enqueue)
        except (BundleError, UnavailableError) as error:
            LOGGER.warning("component %s runs without a CUDA graph: %s", self._name, error)
            return None


def _check_tensors(trt: ModuleType, engine: ICudaEngine, component: ComponentEntry) -> None:
    """Compare the engine's tensors with the manifest. Raises BundleError."""
    names: list[str] = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for mode, specs in ((trt.TensorIOMode.INPUT, component.inputs), (trt.TensorIOMode.OUTPUT, component.outputs)):
        own = {name for name in names if engine.get_tensor_mode(name) == mode}
        if own != {spec.name for spec in specs}:
            raise BundleError(
                f"engine {component.name}: {mode.name.lower()}s {', '.join(sorted(own))}; "
                f"manifest: {', '.join(s.name for s in specs)}; build it again"
            )
        for spec in specs:
            _check_tensor(trt, engine, component.name, spec)


def _check_tensor(trt: ModuleType, engine: ICudaEngine, component: str, spec: TensorSpec) -> None:
    dtype, shape = engine.get_tensor_dtype(spec.name), tuple(engine.get_tensor_shape(spec.name))
    fits = len(shape) == spec.rank and all(
        size in (-1, own) or isinstance(own, str) for size, own in zip(shape, spec.shape, strict=True)
    )
    if DTYPES.get(dtype.name) != spec.dtype or not fits:
        raise BundleError(
            f"engine {component}: {spec.name} is {dtype.name}{list(shape)}; manifest: {spec}; build it again"
        )
    if engine.get_tensor_location(spec.name) != trt.TensorLocation.DEVICE:
        raise BundleError(f"engine {component}: {spec.name} is a shape tensor on the host; a bundle's tensors are data")


def _within(shape: tuple[int, ...], bounds: Any) -> bool:
    smallest, _typical, largest = bounds
    return all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True))
