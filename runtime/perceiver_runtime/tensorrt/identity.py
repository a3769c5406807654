"""This machine as an engine sees it: TensorRT's version, the GPU's compute capability, the JetPack release."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from perceiver_runtime.tensorrt.api import module_kind
from perceiver_runtime.tensorrt.builder.build import current_platform
from perceiver_runtime.tensorrt.sidecar import DeviceIdentity

TEGRA_RELEASE = Path("/etc/nv_tegra_release")
_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: (\d+)(?:\.(\d+))?")


def device_identity(trt: ModuleType, compute_capability: str) -> DeviceIdentity:
    """What engines are held against here."""
    return DeviceIdentity(
        module_kind(trt), str(trt.__version__), compute_capability, current_platform(), jetpack_release()
    )


def jetpack_release(path: Path = TEGRA_RELEASE) -> str | None:
    """The Jetson Linux release without its patch level, such as `R36.4` (JetPack 6.1 and 6.2); None off Jetson.

    A patch level brings no new TensorRT or CUDA, so engines cross it.
    """
    if not path.is_file():
        return None
    found = _RELEASE.search(path.read_text(encoding="utf-8", errors="replace"))
    return f"R{found[1]}.{found[2]}" if found else None
