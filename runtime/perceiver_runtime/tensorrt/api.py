"""The TensorRT modules: how each is found, and names for the classes that this package uses.

The module is a parameter everywhere (`trt`), because four packages offer the same classes: `tensorrt`, `tensorrt_lean`,
`tensorrt_dispatch` and `tensorrt_rtx`. The aliases below are used in annotations only. They name the class of an
argument, so that a test can check every attribute used here against the real API of each version.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import platform
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from perceiver_runtime.errors import UnavailableError, UsageError

Builder: TypeAlias = Any
EngineInspector: TypeAlias = Any
IAttention: TypeAlias = Any
IAttentionOutputLayer: TypeAlias = Any
IBuilderConfig: TypeAlias = Any
IConstantLayer: TypeAlias = Any
ICudaEngine: TypeAlias = Any
IElementWiseLayer: TypeAlias = Any
IExecutionContext: TypeAlias = Any
ILayer: TypeAlias = Any
IMatrixMultiplyLayer: TypeAlias = Any
INetworkDefinition: TypeAlias = Any
IOptimizationProfile: TypeAlias = Any
IProfiler: TypeAlias = Any
IRuntimeConfig: TypeAlias = Any
IShuffleLayer: TypeAlias = Any
ISoftMaxLayer: TypeAlias = Any
ITensor: TypeAlias = Any
ITimingCache: TypeAlias = Any
OnnxParser: TypeAlias = Any
ParserError: TypeAlias = Any
Runtime: TypeAlias = Any

MODULES = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch", "tensorrt_rtx")
TARGET_MODULES = {"rtx": "tensorrt_rtx"}
"""What builds the engines of a target; `tensorrt` those of any other."""
_RTX_LIBRARIES = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
_REMEDIES = {
    "tensorrt": "on a Jetson it comes with JetPack (`apt install python3-libnvinfer`, and a virtual environment made "
    "with --system-site-packages); elsewhere `pip install tensorrt`",
    "tensorrt_lean": "install NVIDIA's lean runtime, `pip install tensorrt_lean`",
    "tensorrt_dispatch": "install NVIDIA's dispatch runtime, `pip install tensorrt_dispatch`",
    "tensorrt_rtx": "`pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings`",
}


def load_tensorrt(name: str = "tensorrt") -> ModuleType:
    """Import one of `MODULES`. Raises UsageError for another name, UnavailableError if it is not installed."""
    if name not in MODULES:
        raise UsageError(f"TensorRT module: expected one of {', '.join(MODULES)}, got {name!r}")
    try:
        module = _load_rtx() if name == "tensorrt_rtx" else importlib.import_module(name)
        if not hasattr(module, "__version__"):
            raise ImportError(f"a directory named {name} on the module path, without TensorRT in it")
    except (ImportError, OSError) as error:
        raise UnavailableError(
            f"{name}: expected to be importable on this machine, got {error} "
            f"(Python {platform.python_version()}, {platform.machine()}); {_REMEDIES[name]}"
        ) from error
    return module


def module_kind(trt: ModuleType) -> str:
    """Which of `MODULES` a module is; bindings imported from a wheel of their own count as what they bind."""
    return trt.__name__.removesuffix("_bindings")


def _load_rtx() -> ModuleType:
    """NVIDIA's own `tensorrt_rtx` where it is installed, else the bindings over the libraries of the `-libs` wheel."""
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return importlib.import_module("tensorrt_rtx")
    libraries = importlib.util.find_spec("tensorrt_rtx_libs")
    if libraries is not None and libraries.origin is not None:
        for library in _RTX_LIBRARIES:
            ctypes.CDLL(str(Path(libraries.origin).parent / library), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_rtx_bindings")
