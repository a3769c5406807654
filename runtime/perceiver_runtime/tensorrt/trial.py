"""One run of an engine that is not in a bundle yet, on inputs in host memory."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import cast

import numpy as np

from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.cuda.memory import DeviceBuffer
from perceiver_runtime.errors import BuildError
from perceiver_runtime.format.wiring import bind_symbols
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensorrt.api import ICudaEngine, Runtime
from perceiver_runtime.tensorrt.dialect import dialect
from perceiver_runtime.tensorrt.engine import Engine
from perceiver_runtime.tensorrt.logger import build_logger
from perceiver_runtime.tensors import Array

Buffers = dict[str, DeviceBuffer]


def run_plan(
    trt: ModuleType, device: CudaDevice, plan: bytes, entry: ComponentEntry, feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Outputs of a serialised engine. Raises BuildError if TensorRT can't open it, and what `Engine.bind` raises."""
    logger = build_logger(trt)
    runtime: Runtime = trt.Runtime(logger)
    engine: ICudaEngine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(f"component {entry.name}: TensorRT can't open what it built: {'; '.join(logger.errors)}")
    inputs, outputs = buffers_of(device, entry, feeds)
    bound = Engine(trt, dialect(trt), engine, entry).bind(inputs, outputs)
    bound()
    results = {name: np.empty(buffer.shape, buffer.dtype) for name, buffer in outputs.items()}
    for name, array in results.items():
        device.download(outputs[name], array)
    return results


def buffers_of(device: CudaDevice, entry: ComponentEntry, feeds: Mapping[str, Array]) -> tuple[Buffers, Buffers]:
    """Memory for the inputs of a component, which are uploaded, and for its outputs."""
    inputs = {spec.name: device.allocate(feeds[spec.name].shape, spec.dtype) for spec in entry.inputs}
    sizes = bind_symbols(entry.inputs, {name: buffer.shape for name, buffer in inputs.items()}, entry.name)
    shapes = {spec.name: spec.resolve(cast(Mapping[str, int], sizes)) for spec in entry.outputs}
    outputs = {spec.name: device.allocate(shapes[spec.name], spec.dtype) for spec in entry.outputs}
    for name, buffer in inputs.items():
        device.upload(feeds[name], buffer)
    return inputs, outputs
