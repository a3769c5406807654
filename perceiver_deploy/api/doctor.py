"""`diagnose`: what this machine can export, build and run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass

from perceiver_runtime.backends.opt_out import opt_out
from perceiver_runtime.machine import usable_cores

REQUIRED = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy", "click", "safetensors", "polygraphy")
ONNXRUNTIME = "pip install 'perceiver-deploy[cpu]', or 'perceiver-deploy[gpu]' for an NVIDIA GPU"
OPTIONAL = {
    "onnxruntime": "pip install 'perceiver-deploy[cpu]'",
    "openvino": "pip install 'perceiver-deploy[openvino]'",
    "onnxruntime-gpu": "pip install 'perceiver-deploy[gpu]'",
    "tensorrt": "pip install 'perceiver-deploy[tensorrt]', or JetPack on a Jetson",
    "tensorrt-rtx-cu13-bindings": "pip install 'perceiver-deploy[tensorrt-rtx]'",
}


@dataclass(frozen=True)
class Finding:
    """One fact about the machine. `needed` findings that are not `ok` keep the toolkit from working."""

    name: str
    value: str
    ok: bool
    needed: bool
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Everything found. `ok`: whether this machine can export and verify a bundle."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether every needed thing is there."""
        return all(f.ok for f in self.findings if f.needed)


def diagnose() -> Diagnosis:
    """Look at the machine. Nothing is changed, nothing is downloaded."""
    return Diagnosis((*_machine(), *_packages(), *_providers(), _gpu()))


def _machine() -> list[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        Finding("python", platform.python_version(), True, True),
        Finding("machine", f"{platform.machine()}, {usable_cores()} cores, {memory:.1f} GiB", True, True),
    ]


def _packages() -> list[Finding]:
    needed = [_package(name, True, "pip install perceiver-deploy") for name in REQUIRED]
    return [*needed, *(_package(name, False, remedy) for name, remedy in OPTIONAL.items())]


def _package(name: str, needed: bool, remedy: str) -> Finding:
    version = _version(name)
    return Finding(name, version or "not installed", version is not None, needed, "" if version else remedy)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _providers() -> list[Finding]:
    if importlib.util.find_spec("onnxruntime") is None:
        return [Finding("onnxruntime providers", "none", False, True, ONNXRUNTIME)]
    if all(map(_version, ("onnxruntime", "onnxruntime-gpu"))):
        remedy = f"pip uninstall --yes onnxruntime onnxruntime-gpu, then {ONNXRUNTIME}"
        return [Finding("onnxruntime providers", "both packages fill the folder onnxruntime", False, True, remedy)]
    opt_out()
    import onnxruntime

    return [
        Finding("onnxruntime providers", ", ".join(onnxruntime.get_available_providers()), True, True),
        _integer_products(),
    ]


def _integer_products() -> Finding:
    """Whether the kernels of int8 are exact here, or saturate and are replaced by slower ones."""
    from perceiver_runtime.backends.integer_products import products_saturate

    if products_saturate():
        return Finding(
            "int8 products", "saturate; int8 takes slower kernels", True, False, "export with --reduce-range"
        )
    return Finding("int8 products", "exact", True, False)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("NVIDIA GPU", torch.cuda.get_device_name(0), True, False)
    return Finding("NVIDIA GPU", "none visible to torch", False, False, "engines can be built, not run, here")
