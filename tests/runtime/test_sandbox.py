"""`--sandbox`: what a bundle does beyond its limits becomes an error, and ends nothing but its own process."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_bundles
from onnx import TensorProto, helper, numpy_helper

from perceiver_runtime import sandbox, sandboxed
from perceiver_runtime.cli.main import main, run_arguments
from perceiver_runtime.errors import SandboxError
from perceiver_runtime.sandbox import Limits, run_sandboxed

HEAD = "onnx/head.onnx"


def hostile(bundle: Path, nodes: Sequence[Any], weights: dict[str, Any]) -> Path:
    """The bundle, with logits that add a value `more` of shape (1,), which these nodes make."""
    model = onnx.load(bundle / HEAD)
    model.graph.node[-1].output[0] = "product"
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    model.graph.node.extend((*nodes, helper.make_node("Add", ["product", "more"], ["logits"])))
    onnx.save(model, bundle / HEAD)
    return tiny_bundles.rehash(bundle, HEAD)


def endless(bundle: Path) -> Path:
    """A loop of 2^62 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Neg", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1]),
        ],
    )
    node = helper.make_node("Loop", ["rounds", "yes", "zero"], ["more"], body=body)
    return hostile(bundle, [node], {"rounds": np.int64(1 << 62), "yes": np.True_, "zero": np.zeros(1, np.float32)})


def vast(bundle: Path) -> Path:
    """A tensor of 64 GiB."""
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["vast"]), helper.make_node("ReduceMax", ["vast"], ["more"])]
    return hostile(bundle, nodes, {"size": np.array([1 << 34])})


def test_a_right_bundle(copy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(copy), "--sandbox", "--json"]) == 0
    assert all(report["passed"] for report in json.loads(capfd.readouterr().out))


def test_a_failed_check_keeps_its_exit_code(copy: Path) -> None:
    tiny_bundles.change(copy, lambda m: [t.update(rel_l2=0.0) for t in m["tolerances"]])
    assert main(["verify", str(copy), "--sandbox", "--quiet"]) == main(["verify", str(copy), "--quiet"])


def test_time(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(endless(copy)), "--sandbox", "--sandbox-time", "2", "--json"]) == 3
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["type"] == "SandboxError"
    assert "longer than 2 s (--sandbox-time" in error["message"]


def test_memory(copy: Path) -> None:
    assert main(["verify", str(vast(copy)), "--sandbox", "--sandbox-memory", "4GB"]) == 3


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("os.kill(os.getpid(), 11)", "crashed with SIGSEGV"),
        ("os.abort()", "crashed with SIGABRT"),
        ("os.kill(os.getpid(), 9)", "was killed"),
        ("os.kill(os.getpid(), 24)", "more processor time"),
    ],
)
def test_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, message: str) -> None:
    child = tmp_path / "child.py"
    child.write_text(f"import os, resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n{end}\n")
    monkeypatch.setattr(sandbox, "CHILD", child)
    with pytest.raises(SandboxError, match=message):
        run_sandboxed(["verify", "bundle"], Limits())


def test_memory_of_python(copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def verify(_session: object) -> None:
        raise MemoryError

    monkeypatch.setattr("perceiver_runtime.cli.main.verify", verify)
    assert run_arguments(["verify", str(copy), "--quiet"], sandboxed=True) == 3
    assert "--sandbox-memory allows more" in capsys.readouterr().err
    assert main(["verify", str(copy), "--quiet"]) == 4
    assert "not enough memory; free some, or ask for less at a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sandbox-memory", "4GB"], "expected with --sandbox"),
        (["--sandbox-time", "4"], "expected with --sandbox"),
        (["--sandbox", "--sandbox-memory", "1MB"], "expected at least 1GiB"),
    ],
)
def test_wrong_use(copy: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["verify", str(copy), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_network() -> None:
    """In a process of its own, which no library has started threads in."""
    code = (
        f"import runpy, socket; found = runpy.run_path({sandboxed.__file__!r})\n"
        "if not found['_without_network'](): raise SystemExit(9)\n"
        "server = socket.socket(); server.settimeout(1)\n"
        "try: server.connect(('127.0.0.1', 9))\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 9:
        pytest.skip("this system does not let a user make a network namespace")
    import errno

    assert done.stdout.strip() == str(errno.ENETUNREACH), done.stderr


@pytest.mark.parametrize(
    ("hard", "most", "grace", "expected"),
    [
        (resource.RLIM_INFINITY, 100, 1, (100, 101)),
        (resource.RLIM_INFINITY, 0, 0, (0, 0)),
        (50, 100, 1, (50, 50)),
        (100, 100, 1, (100, 100)),
        (1000, 100, 1, (100, 101)),
    ],
)
def test_limits_are_lowered_and_never_raised(
    monkeypatch: pytest.MonkeyPatch, hard: int, most: int, grace: int, expected: tuple[int, int]
) -> None:
    made: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *given: made.append(given))
    sandboxed._limit(resource.RLIMIT_CPU, most, grace)
    assert made == [(resource.RLIMIT_CPU, expected)]


def _imitate_system(monkeypatch: pytest.MonkeyPatch, answer: int, mapped: bool = True) -> dict[str, str]:
    """A system that answers `unshare` so, and what is written to it; this process keeps its network."""
    written: dict[str, str] = {}

    class Entry(io.StringIO):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

        def __exit__(self, *_: object) -> None:
            written[self.path] = self.getvalue()

    def opened(path: str, *_: str, **__: str) -> Entry:
        if not mapped:
            raise PermissionError(path)
        return Entry(path)

    libc = SimpleNamespace(prctl=lambda *_: 0, unshare=lambda _: answer)
    monkeypatch.setattr(sandboxed, "ctypes", SimpleNamespace(CDLL=lambda *_, **__: libc))
    monkeypatch.setattr(sandboxed, "open", opened, raising=False)
    return written


def test_a_process_without_network_keeps_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    written = _imitate_system(monkeypatch, 0)
    monkeypatch.setattr("os.getuid", lambda: 1000)
    monkeypatch.setattr("os.getgid", lambda: 100)
    assert sandboxed._without_network()
    assert written == {
        "/proc/self/setgroups": "deny",
        "/proc/self/uid_map": "1000 1000 1",
        "/proc/self/gid_map": "100 100 1",
    }


def test_a_system_that_maps_no_user_takes_the_network_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _imitate_system(monkeypatch, 0, mapped=False) == {}
    assert sandboxed._without_network()


@pytest.mark.parametrize("has_users", [True, False])
def test_a_system_that_keeps_the_network_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], has_users: bool
) -> None:
    """The command runs all the same, under its limits, and its exit code is that of the process."""
    _imitate_system(monkeypatch, -1)
    if not has_users:
        monkeypatch.delattr("os.getresuid")
    made: dict[int, tuple[int, int]] = {}
    ran: list[tuple[list[str], bool]] = []

    def run(arguments: list[str], *, sandboxed: bool) -> int:
        ran.append((arguments, sandboxed))
        return 5

    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, both: made.update({kind: both}))
    monkeypatch.setattr("perceiver_runtime.cli.main.run_arguments", run)
    limits = {"files": 256, "seconds": 2.5, "cores": 4, "memory": 1 << 32}
    monkeypatch.setattr(sys, "argv", ["sandboxed.py", json.dumps(limits), "verify", "bundle"])
    here = str(Path(sandboxed.__file__).parent)
    monkeypatch.setattr(sys, "path", [here, *sys.path])
    assert sandboxed.main() == 5
    assert ran == [(["verify", "bundle"], True)]
    assert made == {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (256, 256),
        resource.RLIMIT_CPU: (11, 12),
        resource.RLIMIT_AS: (1 << 32, 1 << 32),
    }
    assert "this system does not let a user take the network away from a process" in capsys.readouterr().err
    assert sys.path[0] != here
