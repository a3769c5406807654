"""Nothing is reported to anyone: commands open no socket and leave nothing outside of where they are told to write."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles

ROOT = Path(__file__).parents[2]
BACKENDS = ("onnxruntime", "openvino")
REPORTERS = {"onnxruntime", "openvino"}
STRACE = shutil.which("strace")
CALLS = "socket,connect,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
WRITES = re.compile(r'(?:open|openat)\([^"]*"([^"]*)".*O_(?:WRONLY|RDWR|CREAT)|(?:creat|mkdir|mkdirat)\([^"]*"([^"]*)"')
HARMLESS = ("/dev/", "/proc/")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.savez(tmp_path / "in.npz", **tiny_bundles.feeds())  # type: ignore[arg-type]
    return tmp_path / "in.npz"


def _commands(bundle: Path, backend: str, inputs: Path) -> Iterator[list[str]]:
    shared = ["--backend", backend, "--threads", "1"]
    yield ["verify", str(bundle), *shared]
    yield ["run", str(bundle), *shared, "--inputs", str(inputs), "--out", str(inputs.with_name("out.npz"))]


def _run(command: list[str], home: Path, prefix: tuple[str, ...] = ()) -> None:
    """As a user who has set none of the switches, with a home of their own."""
    kept = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME")}
    environment = {**kept, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    whole = [*prefix, sys.executable, "-m", "perceiver_runtime", *command]
    done = subprocess.run(whole, env=environment, cwd=home.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_home_is_left_alone(bundle: Path, backend: str, inputs: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for command in _commands(bundle, backend, inputs):
        _run(command, home)
    assert not list(home.rglob("*"))


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_no_socket_and_no_file_outside(bundle: Path, backend: str, inputs: Path, tmp_path: Path) -> None:
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    for command in _commands(bundle, backend, inputs):
        _run(command, home, (str(STRACE), "-f", "-qq", "-e", f"trace={CALLS}", "-o", str(trace)))
        lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
        assert any("manifest.json" in line for line in lines)  # strace sees what the command does
        assert not [line for line in lines if "AF_INET" in line]
        written = {m[1] or m[2] for line in lines if (m := WRITES.search(line)) and " = -1 " not in line}
        outside = {p for p in written if not p.startswith((str(tmp_path), *HARMLESS))}
        assert not outside


def test_reports_are_off_before_the_libraries_are_imported() -> None:
    code = (
        "import os, sys; import perceiver_runtime; "
        "assert not {'onnxruntime', 'openvino'} & set(sys.modules); "
        "print(os.environ['ORT_DISABLE_TELEMETRY'], sys.modules['openvino_telemetry'])"
    )
    kept = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    got = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True).stdout
    assert got.split() == ["1", "None"]


def test_a_user_who_wants_reports_keeps_them() -> None:
    code = "import os, perceiver_runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    got = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "0"


@pytest.mark.parametrize("folder", ["perceiver_deploy", "exporters", "runtime", "benchmarks"])
def test_who_imports_a_library_imports_the_runtime_first(folder: str) -> None:
    """At module level; what is imported inside of functions comes after all of that."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not REPORTERS & {name for node in ast.walk(tree) for name in _imported(node)}:
            continue
        first = [name for node in tree.body for name in _imported(node)]
        before = first[: next((i for i, name in enumerate(first) if name in REPORTERS), len(first))]
        inside = "perceiver_runtime" in path.parts
        assert inside or any(name.startswith("perceiver_") for name in before), path


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [node.module.split(".")[0]] if isinstance(node, ast.ImportFrom) and node.module else []
