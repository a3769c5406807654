"""The lean promise: the runtime's wheel alone, with NumPy and ONNX Runtime, verifies a bundle in a bare environment."""

from __future__ import annotations

import json
import venv
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import tiny_bundles
from environments import PIP, ROOT, call

RUNTIME = ROOT / "runtime"
WHEEL_LIMIT_BYTES = 305_000
"""293 KB, of which 4 KB are the licence."""
IMPORT_LIMIT_SECONDS = 0.3
TIME_IMPORT = """
import time, numpy, onnxruntime
start = time.process_time()
import perceiver_runtime.cli.main
print(time.process_time() - start)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, RUNTIME)
    (built,) = folder.glob("perceiver_runtime-*.whl")
    return built


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A bare environment's bin folder: the wheel, and what its extra `cpu` needs, in the versions tested here."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder)
    pins = [f"{name}=={version(name)}" for name in ("numpy", "onnxruntime")]
    call(*PIP, "--python", folder / "bin/python", "install", "--no-compile", f"{wheel}[cpu]", *pins)
    return folder / "bin"


def test_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size < WHEEL_LIMIT_BYTES
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {str(p.relative_to(RUNTIME)) for p in (RUNTIME / "perceiver_runtime").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    assert {"perceiver_runtime/py.typed", "perceiver_runtime/telemetry/jetson.py"} <= names


def test_verifies_a_bundle_alone(binaries: Path, bundle: Path) -> None:
    records = json.loads(call(binaries / "perceiver-run", "verify", bundle, "--json"))
    assert records
    assert all(record["passed"] for record in records)
    bench = ("bench", bundle, "--iterations", "2", "--warmup", "0", "--concurrency", "2", "--rate", "100")
    call(binaries / "python", "-m", "perceiver_runtime", *bench)


def test_tests_its_device_alone(binaries: Path, bundle: Path, tmp_path: Path) -> None:
    quick = ("--iterations", "2", "--warmup", "0", "-o", tmp_path / "report.zip")
    assert "written to" in call(binaries / "perceiver-run", "selftest", bundle, *quick)


def test_evaluates_labelled_samples_alone(binaries: Path, bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", **tiny_bundles.feeds(3), logits=np.zeros((3, 5), np.int64))  # type: ignore[arg-type]
    call(binaries / "perceiver-run", "evaluate", bundle, "--data", tmp_path / "test.npz")


def test_torch_and_the_exporters_are_not_there(binaries: Path) -> None:
    for module in ("torch", "onnx", "safetensors", "perceiver_exporters", "perceiver_deploy"):
        call(binaries / "python", "-c", f"import {module}", ok=False)


def test_import_is_fast(binaries: Path) -> None:
    """Beyond NumPy and ONNX Runtime; processor time and the best of five, for the machine may be busy."""
    assert min(float(call(binaries / "python", "-c", TIME_IMPORT)) for _ in range(5)) < IMPORT_LIMIT_SECONDS


def test_imports_nothing_but_numpy_and_a_backend(binaries: Path) -> None:
    """Third-party modules loaded by a command that needs no backend."""
    code = (
        "import sys; before = set(sys.modules); import perceiver_runtime.cli.main; "
        "loaded = {m.split('.')[0] for m in set(sys.modules) - before if sys.modules[m] is not None}; "
        "print(sorted(loaded - set(sys.stdlib_module_names)))"
    )
    assert call(binaries / "python", "-c", code).strip() == "['numpy', 'perceiver_runtime']"
