"""What `auto` runs, and what it says of it. The device with TensorRT is SIMULATED."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_bundles
from engines.simulation.jetson import SimulatedJetson, simulated_jetson
from engines.simulation.ort import simulated_ort

from perceiver_deploy.cli.main import main as inspect
from perceiver_exporters.engines import build
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime import BundleError, UnavailableError, open_session
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.cli.main import main
from perceiver_runtime.execution import choice
from perceiver_runtime.execution.choice import default_threads
from perceiver_runtime.format.tuning import Measured, write_tuning
from perceiver_runtime.machine import physical_cores, usable_cores
from perceiver_runtime.tensorrt import backend as tensorrt_backend
from perceiver_runtime.tensorrt.api import TARGET_MODULES
from perceiver_runtime.tensorrt.builder.bundle import EngineOptions, build_engines
from perceiver_runtime.tensorrt.builder.device_build import module_for

Install = Callable[[SimulatedJetson], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make this machine a simulated device."""

    def put(jetson: SimulatedJetson, *modules: str) -> None:
        def load(name: str) -> Any:
            if modules and name not in modules:
                raise UnavailableError(f"{name}: expected to be importable on this machine")
            return jetson.trt

        monkeypatch.setattr(tensorrt_backend, "load_tensorrt", load)
        monkeypatch.setattr(tensorrt_backend, "load_cudart", lambda: jetson.cuda)

    return put


def tune(bundle: Path) -> None:
    """Name a winner that `auto` would never take by itself."""
    with open_session(bundle, "onnxruntime-exact", 1) as session:
        versions = dict(session.versions)
    write_tuning(bundle, (Measured("onnxruntime-exact", 1, versions, 1.0, 1.0, 1.0, 1.0),))


def test_engines_that_fit_come_first(built: Path, jetson: SimulatedJetson, install: Install) -> None:
    install(jetson)
    tune(built)
    with open_session(built) as session:
        assert session.backend == "tensorrt"
        assert session.threads is None
        assert session.reason == "engines for jetson-orin fit tensorrt 10.3.0 on compute capability 8.7"
        assert set(session.run(tiny_bundles.feeds())) == {"logits", "answers", "scaled_keys"}
    assert jetson.cuda.launches >= 0


def test_a_bundle_for_onnx_runtime_on_a_gpu(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On the GPU where there is one; on the processor it is said why."""
    tiny_bundles.change(path, lambda manifest: manifest.update(target="cuda"))
    with open_session(path) as session:
        assert session.backend == "onnxruntime"
        assert "no tuning; backend onnxruntime-cuda: " in session.reason
    assert [record.levelname for record in caplog.records if record.message.startswith("auto: ")] == ["WARNING"]
    gpu = simulated_ort(monkeypatch)
    monkeypatch.setattr(choice, "open_backend", lambda name, _: {"onnxruntime-cuda": gpu.backend}[name]())
    with open_session(path) as session:
        assert (session.backend, session.threads) == ("onnxruntime-cuda", None)
        assert session.reason == "the bundle is for target cuda; no engines in the bundle; no tuning"


def test_then_a_tuning_then_onnx_runtime(path: Path) -> None:
    with open_session(path) as session:
        assert (session.backend, session.reason) == ("onnxruntime", "no engines in the bundle; no tuning")
    tune(path)
    with open_session(path) as session:
        assert (session.backend, session.threads) == ("onnxruntime-exact", 1)
        assert session.reason == "fastest of 1 settings measured on this machine; no engines in the bundle"
    with open_session(path, threads=2) as session:
        assert session.backend == "onnxruntime"
        assert "tuning not used: it is for 1 threads, 2 were asked for" in session.reason


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (simulated_jetson(version="10.13.3.9"), "built for TensorRT 10.3.0, here 10.13.3.9"),
        (simulated_jetson(capability="8.6"), "built for compute capability 8.7, here 8.6"),
        (None, "tensorrt: expected to be importable on this machine"),
    ],
)
def test_engines_that_do_not_fit_are_named_and_passed_over(
    built: Path, install: Install, caplog: pytest.LogCaptureFixture, other: SimulatedJetson | None, reason: str
) -> None:
    if other is not None:
        install(other)
    with caplog.at_level(logging.INFO, "perceiver_runtime.execution.choice"), open_session(built) as session:
        assert session.backend == "onnxruntime"
        assert session.reason.startswith("engines not used: ")
        assert reason in session.reason
    (record,) = [r for r in caplog.records if r.name == "perceiver_runtime.execution.choice"]
    assert record.levelno == logging.WARNING
    assert session.reason in record.getMessage()
    with pytest.raises(UnavailableError):
        open_session(built, "tensorrt")


def test_damaged_engines_are_an_error(built: Path, jetson: SimulatedJetson, install: Install) -> None:
    install(jetson)
    plan = built / "engines/jetson-orin/block.plan"
    plan.write_bytes(plan.read_bytes()[:-1])
    tiny_bundles.rehash(built, "engines/jetson-orin/block.plan")
    with pytest.raises(BundleError, match="not the engine that its sidecar describes"):
        open_session(built)


def test_engines_of_some_components_are_not_enough(built: Path, jetson: SimulatedJetson, install: Install) -> None:
    install(jetson)

    def drop(manifest: dict[str, Any]) -> None:
        for suffix in (".plan", ".json", ".layers.json"):
            del manifest["files"][f"engines/jetson-orin/head{suffix}"]
            (built / f"engines/jetson-orin/head{suffix}").unlink()

    tiny_bundles.change(built, drop)
    with open_session(built) as session:
        assert session.backend == "onnxruntime"
        assert "jetson-orin: no engine of head" in session.reason


def test_compatible_engines_run_on_the_lean_runtime(path: Path, jetson: SimulatedJetson, install: Install) -> None:
    build_engines(path, "jetson-orin", jetson.trt, EngineOptions(version_compatible=True, device=jetson.device))
    install(jetson, "tensorrt_lean")  # type: ignore[call-arg]
    with open_session(path) as session:
        assert session.backend == "tensorrt-lean"


def test_tensorrt_is_not_looked_for_without_engines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []
    monkeypatch.setattr(tensorrt_backend, "load_tensorrt", looked_for.append)
    monkeypatch.setattr(tensorrt_backend, "load_cudart", lambda: looked_for.append("cuda"))
    code = f"import sys, perceiver_runtime as p; p.open_session({str(path)!r}); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'perceiver_runtime.execution.choice'" in modules
    for name in ("tensorrt", "tensorrt_lean", "cuda", "perceiver_runtime.tensorrt.backend"):
        assert f"'{name}'" not in modules
    open_session(path).close()
    assert looked_for == []


def test_a_bundle_for_a_device_without_engines_says_how_to_build_them(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_bundles.change(path, lambda manifest: manifest.update(target="jetson-orin"))
    with open_session(path) as session:
        assert session.backend == "onnxruntime"
        assert "build those for jetson-orin: perceiver-run build" in session.reason
        assert set(session.run(tiny_bundles.feeds())) == {"logits", "answers", "scaled_keys"}
    assert "build those for jetson-orin" in caplog.text


def test_every_command_says_what_ran(
    built: Path, jetson: SimulatedJetson, install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(jetson)
    said = "running on tensorrt (engines for jetson-orin fit tensorrt 10.3.0 on compute capability 8.7)"
    runs_on = {"backend": "tensorrt", "threads": None, "reason": said.split("(")[1].rstrip(")")}
    files = [f"--input={name}={tmp_path / name}.npy" for name in tiny_bundles.feeds()]
    for name, array in tiny_bundles.feeds().items():
        tiny_bundles.np.save(tmp_path / f"{name}.npy", array)
    for command in (["verify"], ["run", *files, "-o", str(tmp_path / "out.npz")]):
        assert main([command[0], str(built), *command[1:], "--json"]) == 0
        printed = capsys.readouterr()
        assert said in printed.err
        assert all(record["runs_on"] == runs_on for record in json.loads(printed.out))
    assert main(["bench", str(built), "--iterations", "2", "--warmup", "1", "--json"]) == 0
    printed = capsys.readouterr()
    assert said in printed.err
    report = json.loads(printed.out)
    assert {name: report[name] for name in runs_on} == runs_on
    assert main(["bench", str(built), "--iterations", "2", "--warmup", "1"]) == 0
    assert said.removeprefix("running on ") in " ".join(capsys.readouterr().out.split())


def test_small_bundles_run_on_one_thread_and_large_ones_on_all_cores(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_bundle(path).manifest
    assert default_threads(manifest) == 1
    with open_session(path) as session:
        assert session.threads == 1
    for backend in ("onnxruntime-exact", "onnxruntime-quick", "openvino"):
        with open_session(path, backend) as session:
            assert session.threads == 1
    monkeypatch.setattr(choice, "ONE_THREAD_FLOPS", 1)
    assert default_threads(manifest) == physical_cores() <= usable_cores()
    with open_session(path) as session:
        assert session.threads == physical_cores()
    with open_session(path, threads=1) as session:
        assert session.threads == 1


def test_recurrent_layers_gain_nothing_from_threads(path: Path) -> None:
    manifest = load_bundle(path).manifest
    entry = replace(manifest.components[0], flops=3 * choice.ONE_THREAD_FLOPS)
    few = replace(entry, recurrent_flops=2 * choice.ONE_THREAD_FLOPS + 1)
    assert default_threads(replace(manifest, components=(entry,))) == physical_cores()
    assert default_threads(replace(manifest, components=(few,))) == 1


def test_overlapping_runs_follow_the_threads_that_were_chosen(path: Path) -> None:
    chosen = choice.choose(load_bundle(path))
    assert chosen.threads == 1
    assert chosen.backend.concurrency == usable_cores()


def test_info_card_and_kit_name_engines_and_backend(
    path: Path, jetson: SimulatedJetson, install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = build(path, "jetson-orin", kit=tmp_path / "kit").kit
    assert kit is not None
    (path / "README.md").write_text("# Tiny\n\n## Parity\n\nheld\n")
    tiny_bundles.change(path, lambda manifest: manifest["files"].update({"README.md": {"sha256": "", "size": 0}}))
    tiny_bundles.rehash(path, "README.md")
    kit = build(path, "jetson-orin", kit=kit, overwrite=True).kit
    assert kit is not None
    card = (kit / "README.md").read_text()
    assert card.startswith(
        "# Tiny\n\n## Parity\n\nheld\n\n## Engines\n\nNone yet: this is a build kit for `jetson-orin`"
    )
    assert "tensorrt 10.3 or newer, compute capability 8.7" in card
    assert (path / "README.md").read_text() == "# Tiny\n\n## Parity\n\nheld\n"
    engines = "jetson-orin: tensorrt 10.3.0, compute capability 8.7, 6 components"
    for _ in range(2):
        jetson.build(kit)
        card = (kit / "README.md").read_text()
        assert card.count("## Engines") == 1
        assert engines.removeprefix("jetson-orin") in card
        assert "None yet" not in card
    install(jetson)
    assert main(["inspect", str(kit)]) == 0
    shown = capsys.readouterr().out
    assert f"engines {engines}" in shown
    assert "auto    tensorrt (engines for jetson-orin fit" in shown
    assert main(["inspect", str(kit), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [each["target"] for each in shown["engines"]] == ["jetson-orin"]
    assert shown["runs_on"]["backend"] == "tensorrt"
    with pytest.raises(SystemExit):
        inspect(["inspect", str(kit)])
    assert "engines jetson-orin: tensorrt 10.3.0" in capsys.readouterr().out
    assert main(["inspect", str(path)]) == 0
    assert "onnxruntime, 1 thread" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("own", "target", "module"),
    [
        ("rtx", None, "tensorrt_rtx"),
        ("jetson-orin", None, "tensorrt"),
        ("cpu", "rtx", "tensorrt_rtx"),
        ("rtx", "mine", "tensorrt_rtx"),
        ("cpu", None, "tensorrt"),
    ],
)
def test_a_build_takes_the_module_of_the_target(path: Path, own: str, target: str | None, module: str) -> None:
    tiny_bundles.change(path, lambda manifest: manifest.update(target=own))
    assert module_for(load_bundle(path), target) == module


def test_the_modules_of_targets_are_those_of_the_exporters(path: Path, tmp_path: Path) -> None:
    known = {name: t.engines.module for name, t in TARGETS.items() if t.engines is not None}
    assert {name: TARGET_MODULES.get(name, "tensorrt") for name in known} == known
    kit = build(path, "jetson-orin", kit=tmp_path / "kit").kit
    assert kit is not None
    assert module_for(load_bundle(kit)) == "tensorrt"
