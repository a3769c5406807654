"""Inspect an engine: layers at DETAILED verbosity, as JSON that engine explorers read, and device memory."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from perceiver_runtime.errors import BuildError
from perceiver_runtime.tensorrt.api import EngineInspector, ICudaEngine, IExecutionContext, Runtime
from perceiver_runtime.tensorrt.fusion import fused_attention, layers_of_json
from perceiver_runtime.tensorrt.logger import build_logger


@dataclass(frozen=True)
class Inspection:
    """What TensorRT tells of an engine.

    `layers` is its JSON; `device_bytes` is the memory of one execution context at the largest shapes, `fused_attention`
    the number of kernels that compute an attention whole.
    """

    layers: str
    device_bytes: int
    fused_attention: int | None = None


def inspect_engine(trt: ModuleType, plan: bytes, component: str) -> Inspection:
    """Deserialise an engine that was just built on this GPU. Raises BuildError if TensorRT can't."""
    logger = build_logger(trt)
    runtime: Runtime = trt.Runtime(logger)
    engine: ICudaEngine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(
            f"component {component}: TensorRT built an engine that it can't open: {'; '.join(logger.errors)}"
        )
    layers = layers_of(trt, engine)
    return Inspection(layers, engine.device_memory_size_v2, fused_attention(layers_of_json(layers)))


def layers_of(trt: ModuleType, engine: ICudaEngine, context: IExecutionContext = None) -> str:
    """TensorRT's JSON of an engine's layers, as `trtexec --exportLayerInfo` writes it.

    With a context, dimensions are those of its shapes; without one, those that vary are -1.
    """
    inspector: EngineInspector = engine.create_engine_inspector()
    if context is not None:
        inspector.execution_context = context
    layers: str = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return layers
