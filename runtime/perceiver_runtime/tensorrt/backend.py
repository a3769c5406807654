"""The TensorRT backends: engines of a bundle, checked against this machine before they are deserialised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

from perceiver_runtime.backends.backend import Device, Priority
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.cuda.arrays import CudaExchange
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.cuda.library import load_cudart
from perceiver_runtime.errors import BundleError, UnavailableError
from perceiver_runtime.escapes import command_line
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensorrt.api import Runtime, load_tensorrt
from perceiver_runtime.tensorrt.dialect import dialect
from perceiver_runtime.tensorrt.engine import Engine
from perceiver_runtime.tensorrt.identity import device_identity
from perceiver_runtime.tensorrt.logger import build_logger
from perceiver_runtime.tensorrt.sidecar import (
    DeviceIdentity,
    Sidecar,
    check_graph,
    differences,
    engine_path,
    graph_sha256,
    parse_sidecar,
    sidecar_path,
)

MODULES = {
    "tensorrt": "tensorrt",
    "tensorrt-lean": "tensorrt_lean",
    "tensorrt-dispatch": "tensorrt_dispatch",
    "tensorrt-rtx": "tensorrt_rtx",
}
"""Module of each backend. The lean and dispatch runtimes run engines that were built version compatible."""


def open_backend(name: str, threads: int | None) -> TensorRT:
    """The backend on this machine's GPU. Raises UnavailableError without TensorRT, cuda-bindings or a GPU."""
    del threads  # engines run on the GPU
    return TensorRT(name, load_tensorrt(MODULES[name]), CudaDevice(load_cudart()))


class TensorRT:
    """Engines on one GPU: values stay on it, callers share the engines' weights, CUDA graphs are captured once.

    `trt` is the TensorRT module.
    """

    concurrency = 4  # each run has a stream, contexts and buffers; more would only wait for the GPU

    def __init__(self, name: str, trt: ModuleType, device: CudaDevice) -> None:
        self.name = name
        self.device = device
        self.versions: Mapping[str, str] = {trt.__name__: str(trt.__version__)}
        self.trt = trt
        self._rules = dialect(trt)
        self._logger = build_logger(trt)
        self._runtime: Runtime = trt.Runtime(self._logger)
        self._identity = device_identity(trt, device.compute_capability())

    @property
    def machine(self) -> str:
        """TensorRT and compute capability of this machine, for messages."""
        found = self._identity
        return f"{found.module} {found.tensorrt} on compute capability {found.compute_capability}"

    def check(self, bundle: Bundle) -> tuple[str, ...]:
        """Targets whose engines would run the bundle here, without deserialising them. Raises like `load`."""
        targets = (self._target(bundle, component.name) for component in bundle.manifest.components)
        return tuple(dict.fromkeys(targets))

    def load(self, bundle: Bundle, component: ComponentEntry) -> Engine:
        """Deserialise the component's engine for this machine.

        Raises UnavailableError if the bundle has none, BundleError if it is stale or damaged.
        """
        target = self._target(bundle, component.name)
        path = bundle.file(engine_path(target, component.name))
        engine: Any = self._runtime.deserialize_cuda_engine(bundle.read(engine_path(target, component.name)))
        if engine is None:
            raise BundleError(f"{path}: TensorRT can't read it: {'; '.join(self._logger.errors) or 'no reason given'}")
        return Engine(self.trt, self._rules, engine, component)

    def limit_memory(self, nbytes: int) -> None:
        """Limit the device memory of buffers and scratch memory, in bytes; engines and CUDA itself are not counted."""
        self.device.budget.limit = nbytes

    def open_device(self, priority: Priority) -> CudaDevice:
        """A stream of that priority on the GPU."""
        return self.device.beside(priority)

    def exchange(self, device: Device, stream: Any) -> CudaExchange:
        """Arrays in and out of a stream."""
        assert isinstance(device, CudaDevice)  # for mypy
        return CudaExchange(device, stream)

    def _target(self, bundle: Bundle, component: str) -> str:
        target, sidecar = find_engine(bundle, component, self._identity)
        check_graph(sidecar, graph_sha256(bundle.manifest, component))
        return target


def engine_targets(bundle: Bundle) -> tuple[str, ...]:
    """Targets that the bundle has engines for."""
    parts = (PurePosixPath(path).parts for path in bundle.manifest.files)
    return tuple(sorted({part[1] for part in parts if len(part) == 3 and part[0] == "engines"}))


def sidecars(bundle: Bundle) -> tuple[Sidecar, ...]:
    """Sidecars of the bundle's engines, by target and component. Raises BundleError."""
    listed = bundle.manifest.files
    paths = [sidecar_path(t, c.name) for t in engine_targets(bundle) for c in bundle.manifest.components]
    return tuple(parse_sidecar(bundle.read(path), bundle.file(path)) for path in paths if path in listed)


def find_engine(bundle: Bundle, component: str, identity: DeviceIdentity) -> tuple[str, Sidecar]:
    """The first target whose engine of a component runs on this machine, with its sidecar. Raises UnavailableError."""
    listed = bundle.manifest.files
    reasons = []
    for target in engine_targets(bundle):
        if engine_path(target, component) not in listed or sidecar_path(target, component) not in listed:
            reasons.append(f"{target}: no engine of {component}")
            continue
        place = sidecar_path(target, component)
        sidecar = parse_sidecar(bundle.read(place), bundle.file(place))
        if sidecar.engine_sha256 != listed[engine_path(target, component)].sha256:
            raise BundleError(
                f"{engine_path(target, component)}: not the engine that its sidecar describes; build it again"
            )
        if not (wrong := differences(sidecar, identity)):
            return target, sidecar
        reasons.append(f"{target}: " + ", ".join(f"built for {w} {e}, here {g}" for w, e, g in wrong))
    raise UnavailableError(
        f"component {component}: expected an engine for {identity.module} {identity.tensorrt} on compute capability "
        f"{identity.compute_capability}, got {'; '.join(reasons) or 'a bundle without engines'}; "
        f"build them here: {command_line('perceiver-run', 'build', bundle.path)}"
    )
