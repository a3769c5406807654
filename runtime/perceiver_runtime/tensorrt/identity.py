"""This machine as an engine sees it: TensorRT's version, the GPU's compute capability, the JetPack release."""

from __future__ import annotations

from types import ModuleType

from perceiver_runtime.machine import current_platform, jetpack_release
from perceiver_runtime.tensorrt.api import module_kind
from perceiver_runtime.tensorrt.sidecar import DeviceIdentity


def device_identity(trt: ModuleType, compute_capability: str) -> DeviceIdentity:
    """What engines are held against here."""
    return DeviceIdentity(
        module_kind(trt), str(trt.__version__), compute_capability, current_platform(), jetpack_release()
    )
