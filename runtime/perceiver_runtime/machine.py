"""Facts about this computer: processor, cores, platform, JetPack release."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

TEGRA_RELEASE = Path("/etc/nv_tegra_release")
CPUINFO = Path("/proc/cpuinfo")
BOARD = Path("/proc/device-tree/model")
INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Extensions of x86-64 and arm64 that decide about the speed of matrix products."""
_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: (\d+)(?:\.(\d+))?")


def machine() -> str:
    """Processor or board, number of cores, and operating system."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def instructions() -> tuple[str, ...]:
    """Those of `INSTRUCTIONS` that the processor has; empty if the system does not tell."""
    text = CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.is_file() else ""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return tuple(name for name in INSTRUCTIONS if name in flags)


def usable_cores() -> int:
    """Cores that this process may use; containers and CPU affinity can limit them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_cores() -> int:
    """Usable cores without their second hardware threads, which do not speed up arithmetic."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    siblings = {_siblings(cpu) for cpu in usable}
    return len(siblings) if siblings and "" not in siblings else usable_cores()


def current_platform() -> str:
    """Operating system and processor, such as `linux-aarch64`."""
    return f"{platform.system()}-{platform.machine()}".lower()


def jetpack_release(path: Path = TEGRA_RELEASE) -> str | None:
    """The Jetson Linux release without its patch level, such as `R36.4` (JetPack 6.1 and 6.2); None off Jetson.

    A patch level brings no new TensorRT or CUDA, so engines cross it.
    """
    if not path.is_file():
        return None
    found = _RELEASE.search(path.read_text(encoding="utf-8", errors="replace"))
    return f"R{found[1]}.{found[2]}" if found else None


def _siblings(cpu: int) -> str:
    """Hardware threads of a processor's core; empty if the system does not tell."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _processor() -> str:
    if BOARD.is_file():
        return BOARD.read_text(encoding="utf-8").rstrip("\0")
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"
