"""Every public error: a command that a user can type ends with it, says what and why, and has its exit code."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny_bundles
from engines.simulation.jetson import simulated_jetson

import perceiver_deploy
import perceiver_exporters
import perceiver_runtime
from perceiver_deploy.cli import main as program
from perceiver_runtime.cli import main as device
from perceiver_runtime.cuda import library
from perceiver_runtime.errors import PerceiverError
from perceiver_runtime.tensorrt import api

Run = Callable[[list[str]], object]
NPZ = ("run", "bundle", "-o", "out.npz", "--inputs")
CASES: dict[str, dict[str, tuple[Run, tuple[str, ...]]]] = {
    "CheckError": {"parity failed on the board": (program.main, ("boards", "import", "failed.zip"))},
    "UsageError": {
        "expected an integer of 1": (device.main, ("bench", "bundle", "--iterations", "0")),
        "No such option": (program.main, ("inspect", "bundle", "--no-such-option")),
        "exists; choose another directory": (program.main, ("export", "fashion-perceiver", "-o", "folder")),
    },
    "BundleError": {
        "expected a bundle directory": (device.main, ("inspect", "none")),
        "expected sha256|expected .* bytes": (device.main, ("verify", "damaged")),
        "folder: no manifest.json": (program.main, ("inspect", "folder")),
    },
    "SignatureError": {
        "without signature.ed25519": (device.main, ("verify", "bundle", "--require-signature", "public.pem")),
        "expected an Ed25519 private key": (program.main, ("sign", "bundle", "--key", "public.pem")),
    },
    "SandboxError": {
        "longer than 0.5 s": (
            device.main,
            ("bench", "bundle", "--duration", "60", "--sandbox", "--sandbox-time", "0.5"),
        ),
    },
    "CheckpointError": {
        "config.json": (program.main, ("export", "checkpoint", "-o", "out")),
    },
    "DatasetError": {
        "expected targets by the name of an output": (device.main, ("evaluate", "bundle", "--data", "feeds.npz")),
    },
    "FeedError": {
        "expected arrays saved by": (device.main, (*NPZ, "text")),
        "wrong.npz: no input 'y'": (device.main, (*NPZ, "wrong.npz")),
    },
    "ReportError": {"expected the zip file": (program.main, ("boards", "import", "text"))},
    "BuildError": {"component block.*Tanh": (device.main, ("build", "bundle"))},
    "UnavailableError": {
        "tensorrt_lean: expected to be importable": (device.main, ("build", "bundle", "--module", "tensorrt_lean")),
    },
}
"""By type: what the message says, and a command that ends with it."""
FLAT = [(kind, message) for kind, cases in CASES.items() for message in cases]


def _public(kind: type[PerceiverError]) -> Iterator[type[PerceiverError]]:
    for inner in kind.__subclasses__():
        yield inner
        yield from _public(inner)


def _import_all(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(("__main__", ".conftest")):
            importlib.import_module(module.name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands name."""
    folder = tmp_path_factory.mktemp("errors")
    model, feeds = tiny_bundles.full_model(), tiny_bundles.feeds()
    for name in ("bundle", "damaged", "failing"):
        tiny_bundles.write(folder / name, model, feeds)
    (folder / "damaged/onnx/head.onnx").write_bytes(b"damaged")
    tiny_bundles.change(folder / "failing", lambda m: [t.update(rel_l2=0.0) for t in m["tolerances"]])
    assert (
        device.main(["selftest", str(folder / "failing"), "-o", str(folder / "failed.zip"), "--iterations", "1"]) == 1
    )
    (folder / "text").write_text("neither a zip nor a key")
    (folder / "folder").mkdir()
    (folder / "folder/file").touch()
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/config.json").write_text('{"model_type": "perceiver"')
    key = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    (folder / "public.pem").write_text(f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n")
    np.savez(folder / "feeds.npz", **feeds)  # type: ignore[arg-type]
    np.savez(folder / "wrong.npz", y=np.zeros(1))
    return folder


@pytest.fixture(autouse=True)
def device_without_importer(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT (simulated) that has no Tanh; no lean runtime."""
    jetson = simulated_jetson()
    monkeypatch.setattr(jetson.trt.OnnxParser, "refused", ("Tanh",))
    load = api.load_tensorrt
    monkeypatch.setattr(api, "load_tensorrt", lambda name: jetson.trt if name == "tensorrt" else load(name))
    monkeypatch.setattr(library, "load_cudart", lambda: jetson.cuda)
    monkeypatch.setitem(sys.modules, "tensorrt_lean", None)


@pytest.mark.parametrize(("kind", "message"), FLAT)
def test_a_command_ends_with_it(
    kind: str, message: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    run, arguments = CASES[kind][message]
    code = _code(run, [*arguments, "--json"])
    captured = capsys.readouterr()
    told = json.loads(captured.out)["error"]
    assert told["type"] == kind, told
    assert re.search(message, told["message"])
    assert told["message"] in captured.err
    assert "Traceback" not in captured.err
    assert code == told["exit_code"] == getattr(perceiver_runtime.errors, kind).exit_code
    assert _code(run, list(arguments)) == code
    assert not capsys.readouterr().out


def test_every_public_error_has_a_case() -> None:
    for package in (perceiver_runtime, perceiver_exporters, perceiver_deploy):
        _import_all(package)
    kinds = {kind for kind in _public(PerceiverError) if kind.__module__.startswith("perceiver_")}
    assert {kind.__name__ for kind in kinds} == set(CASES)
    page = (Path(__file__).parents[2] / "docs/stability.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)}
    assert {kind.exit_code for kind in kinds} <= documented


def _code(run: Run, arguments: list[str]) -> object:
    try:
        return run(arguments)
    except SystemExit as ended:
        return ended.code
