"""The shipped model exported once per precision, and the command line as a user's shell would call it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import perceiver_deploy
from perceiver_exporters.precision.options import DEFAULTS, QuantizationOptions

VARIANTS = {name: (name, DEFAULTS) for name in ("fp32", "fp16", "int8")}
VARIANTS["int8-dynamic-reduced"] = ("int8-dynamic", QuantizationOptions(reduce_range=True))
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    made = {name: root / name for name in VARIANTS}
    for name, path in made.items():
        precision, options = VARIANTS[name]
        perceiver_deploy.export("fashion-perceiver", path, precision=precision, quantization=options)
    return made


def _run(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def perceiver_export() -> Run:
    return lambda *arguments: _run("perceiver_deploy.cli.main", *arguments)


@pytest.fixture(scope="session")
def perceiver_run() -> Run:
    return lambda *arguments: _run("perceiver_runtime", *arguments)
