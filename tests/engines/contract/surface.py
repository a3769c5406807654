"""The real API of a TensorRT version, as data, from the bindings that NVIDIA publishes on PyPI.

Bindings lie in `.cache/tensorrt-bindings/<version>`; `python tests/engines/contract/install.py` puts them there.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.contract.install import BINDINGS
from engines.contract.stubs import build_stubs

PROBE = Path(__file__).with_name("surface_probe.py")


@dataclass(frozen=True)
class Surface:
    """Classes and functions of one module. Members are `{"keywords": ..., "returns": ...}`."""

    module: str
    version: str
    classes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    functions: Mapping[str, Mapping[str, Any]]


@functools.cache
def surface(version: str) -> Surface:
    """The API of one version of TensorRT, over stub libraries. Raises FileNotFoundError if its bindings are missing."""
    package = BINDINGS / version
    extension = package / "tensorrt_bindings" / "tensorrt.so"
    if not extension.exists():
        raise FileNotFoundError(f"{extension}: run `python tests/engines/contract/install.py`")
    stubs = build_stubs(extension, BINDINGS / f"stubs-{version}")
    return _probe("tensorrt", [str(PROBE), str(package), "tensorrt_bindings"], {"LD_LIBRARY_PATH": str(stubs)})


@functools.cache
def rtx_surface() -> Surface:
    """The API of the installed TensorRT-RTX, over its real libraries."""
    script = (
        "import runpy, sys; from perceiver_runtime.tensorrt.api import load_tensorrt; "
        "sys.argv[2] = load_tensorrt('tensorrt_rtx').__name__; runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    return _probe("tensorrt_rtx", ["-c", script, str(PROBE), ""], {})


def _probe(module: str, arguments: list[str], environment: dict[str, str]) -> Surface:
    if arguments[0] == "-c":  # the probe reads argv[1] as a directory and argv[2] as the package
        arguments = [*arguments[:2], str(PROBE), ""]
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    if done.returncode:
        raise RuntimeError(f"introspection of {module} failed:\n{done.stderr}")
    found = json.loads(done.stdout)
    return Surface(module, found["version"], found["classes"], found["functions"])
