"""Differences between versions of TensorRT, in one table. All other code uses it instead of version numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType

from perceiver_runtime.errors import BundleError, UnavailableError
from perceiver_runtime.tensorrt.api import module_kind


@dataclass(frozen=True)
class Dialect:
    """Capabilities of one release line of TensorRT.

    Attributes:
        name: Name in messages.
        module: Name of its Python module.
        since: First version.
        opset: Newest ONNX operator set that its parser accepts.
        attention: Whether ONNX `Attention` becomes a layer that can be decomposed.
        timing_cache: Whether kernel timings can be kept between builds.
        capability_targets: Whether engines can be built for GPUs that are not in this machine.
        context_graphs: Whether an execution context captures CUDA graphs itself; otherwise they are captured from the
            stream.
    """

    name: str
    module: str
    since: tuple[int, int]
    opset: int
    attention: bool
    timing_cache: bool
    capability_targets: bool
    context_graphs: bool

    @property
    def major(self) -> int:
        """The major version: engines do not cross it, unless built version compatible."""
        return self.since[0]


DIALECTS = (
    Dialect("TensorRT-RTX 1", "tensorrt_rtx", (1, 0), 24, True, False, True, True),
    Dialect("TensorRT 11", "tensorrt", (11, 0), 24, True, True, False, False),
    Dialect("TensorRT 10.14", "tensorrt", (10, 14), 23, True, True, False, False),
    Dialect("TensorRT 10.3", "tensorrt", (10, 3), 20, False, True, False, False),
)
"""Newest first: a version speaks the first dialect of its module that is not newer than itself."""

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})(?![0-9])", re.ASCII)
_RUNTIMES = {"tensorrt_lean": "tensorrt", "tensorrt_dispatch": "tensorrt"}


def version_of(text: str) -> tuple[int, int]:
    """Major and minor of a version such as `10.16.1.11`. Raises BundleError for a text that is none."""
    if (match := _VERSION.match(text)) is None:
        raise BundleError(f"TensorRT version: expected one such as 10.16.1, got {text!r:.40}; build again")
    return int(match[1]), int(match[2])


def dialect(trt: ModuleType) -> Dialect:
    """The dialect of a loaded module. Raises UnavailableError for a version older than all of the table."""
    return dialect_of(module_kind(trt), str(trt.__version__))


def dialect_of(module: str, version: str) -> Dialect:
    """The dialect of a module by name and version."""
    family = _RUNTIMES.get(module, module)
    for row in DIALECTS:
        if row.module == family and row.since <= version_of(version):
            return row
    raise UnavailableError(
        f"{module} {version}: expected TensorRT 10.3 or newer (strongly typed networks), or TensorRT-RTX; "
        "upgrade TensorRT, or on a Jetson upgrade to JetPack 6.1"
    )
