"""Identity of this machine for engines: TensorRT version, compute capability, platform, JetPack release."""

from __future__ import annotations

from types import ModuleType

from perceiver_runtime.machine import current_platform, jetpack_release
from perceiver_runtime.tensorrt.api import module_kind
from perceiver_runtime.tensorrt.sidecar import DeviceIdentity


def device_identity(trt: ModuleType, compute_capability: str) -> DeviceIdentity:
    """The identity that engines are compared with."""
    return DeviceIdentity(
        module_kind(trt), str(trt.__version__), compute_capability, current_platform(), jetpack_release()
    )
