"""SIMULATION of an Orin with TensorRT, made of host memory and ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from engines.simulation.cudart import SimulatedCuda
from engines.simulation.trt import simulated_tensorrt

from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.execution.session import Session
from perceiver_runtime.tensorrt.backend import TensorRT
from perceiver_runtime.tensorrt.builder.build import BuildDevice
from perceiver_runtime.tensorrt.builder.bundle import EngineOptions, build_engines


@dataclass(frozen=True)
class SimulatedJetson:
    """A device that builds and runs engines, and the memory behind it."""

    cuda: SimulatedCuda
    trt: ModuleType
    device: BuildDevice

    def build(self, path: Path, target: str = "jetson-orin") -> Path:
        """Add engines to the bundle at `path`."""
        build_engines(path, target, self.trt, EngineOptions(device=self.device))
        return path

    def backend(self) -> TensorRT:
        """The TensorRT backend on this device."""
        return TensorRT("tensorrt", self.trt, CudaDevice(self.cuda))

    def open(self, path: Path) -> Session:
        """A session on this device."""
        return Session(load_bundle(path), self.backend())


def simulated_jetson(version: str = "10.3.0", capability: str = "8.7", capacity: int = 1 << 30) -> SimulatedJetson:
    """A device with that TensorRT version, compute capability and bytes of memory."""
    cuda = SimulatedCuda(capability, capacity)
    trt = simulated_tensorrt(cuda, version)
    return SimulatedJetson(cuda, trt, BuildDevice(capability, "Orin (simulated)"))
