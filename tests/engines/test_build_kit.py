"""From a workstation to a device: engines where they can be built, a kit where not. Devices here are SIMULATED."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_bundles
from engines import seeded
from engines.simulation.jetson import SimulatedJetson, simulated_jetson

from perceiver_deploy.cli.main import main
from perceiver_exporters.engines import build
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.cuda import library
from perceiver_runtime.errors import BundleError, CheckError, UnavailableError, UsageError
from perceiver_runtime.tensorrt import api
from perceiver_runtime.tensorrt.builder.device_build import build_here
from perceiver_runtime.tensorrt.builder.kit import read_kit
from perceiver_runtime.tensorrt.sidecar import read_sidecar

DEVICE = 16 << 30


@pytest.fixture
def kit(path: Path, tmp_path: Path) -> Path:
    outcome = build(path, "jetson-orin", kit=tmp_path / "kit")
    assert outcome.engines == ()
    assert outcome.kit == tmp_path / "kit"
    assert "No module named 'tensorrt'" in outcome.reason
    return outcome.kit


def test_a_kit_is_built_and_run_on_the_device(kit: Path) -> None:
    jetson = simulated_jetson(capacity=DEVICE)
    reports = build_here(kit, jetson.trt, jetson.cuda)
    assert [r.target for r in reports] == ["jetson-orin"] * 6
    assert read_sidecar(kit / "engines/jetson-orin/head.json").device == "Orin (simulated)"
    assert (kit / "kit.json").is_file()
    with jetson.open(kit) as session:
        assert set(session.run(tiny_bundles.feeds())) == {"logits", "answers", "scaled_keys"}


def test_a_kit_holds_one_command(kit: Path) -> None:
    script = kit / "build.sh"
    done = subprocess.run([str(script)], capture_output=True, text=True, env={"PYTHON": sys.executable}, check=False)
    assert done.returncode == 4  # no TensorRT on this machine
    assert "expected to be importable on this machine" in done.stderr
    load_bundle(kit)


@pytest.mark.parametrize(
    ("jetson", "problem"),
    [
        (simulated_jetson(capability="8.6", capacity=DEVICE), "PF011 expected compute capability 8.7"),
        (simulated_jetson(capacity=1 << 30), "PF010 building takes up to"),
    ],
)
def test_a_kit_refuses_another_device(kit: Path, jetson: SimulatedJetson, problem: str) -> None:
    with pytest.raises(UnavailableError, match=problem):
        build_here(kit, jetson.trt, jetson.cuda)
    assert not (kit / "engines").exists()


def test_a_kit_refuses_an_older_tensorrt(path: Path, tmp_path: Path) -> None:
    made = build(path, "jetson-thor", kit=tmp_path / "kit").kit
    assert made is not None
    old = simulated_jetson("10.3.0", "11.0", DEVICE)
    with pytest.raises(UnavailableError, match=r"PF012 expected TensorRT 10\.13 or newer, got 10\.3\.0"):
        build_here(made, old.trt, old.cuda)


def test_a_smaller_workspace_makes_room(kit: Path) -> None:
    expected = read_kit(load_bundle(kit))
    assert expected is not None
    tight = simulated_jetson(capacity=expected.build_peak - (1 << 20))
    with pytest.raises(UnavailableError, match="PF010"):
        build_here(kit, tight.trt, tight.cuda)
    assert build_here(kit, tight.trt, tight.cuda, workspace=64 << 20)


def test_damaged_kits_are_refused(kit: Path) -> None:
    for content, problem in (("{", "no valid JSON"), ('{"schema_version": 9}', "kit schema 9; this runtime reads 1")):
        (kit / "kit.json").write_text(content)
        tiny_bundles.rehash(kit, "kit.json")
        with pytest.raises(BundleError, match=problem):
            read_kit(load_bundle(kit))


def test_a_blocked_bundle_is_never_built(tmp_path: Path) -> None:
    path = seeded.bundle(tmp_path / "bundle", seeded.attention(), opset=23)
    with pytest.raises(CheckError, match="PF009 opset 23"):
        build(path, "jetson-orin")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_an_existing_kit_is_not_overwritten_unasked(path: Path, kit: Path) -> None:
    with pytest.raises(UsageError, match="exists"):
        build(path, "jetson-orin", kit=kit)
    assert build(path, "jetson-orin", kit=kit, overwrite=True).kit == kit


def test_rtx_engines_are_built_here(path: Path) -> None:
    """REAL: TensorRT-RTX, without a GPU, for every architecture of the target."""
    outcome = build(path, "rtx")
    assert outcome.kit is None
    assert [r.component for r in outcome.engines] == [c.name for c in load_bundle(path).manifest.components]
    sidecar = read_sidecar(path / "engines/rtx/fold.json")
    assert sidecar.module == "tensorrt_rtx"
    assert sidecar.compute_capabilities == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert sidecar.jetpack is None


def test_fp32_attention_is_made_decomposable(tmp_path: Path) -> None:
    """REAL: TensorRT-RTX refuses ONNX Attention in FP32 unless it may decompose it."""
    outcome = build(seeded.bundle(tmp_path / "bundle", seeded.attention(), opset=23), "rtx")
    assert outcome.preflight.verdict == "risky"
    assert len(outcome.engines) == 1


def cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return int(str(done.value.code))


def test_check_command(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("check", str(path), "--target", "jetson-orin", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "ok"
    assert cli("check", str(path), "--target", "jetson-orin", "--memory", "1GB") == 1
    out = capsys.readouterr().out
    assert "PF010" in out
    assert "a board of 1 GB" in out
    assert cli("check", str(path), "--target", "toaster") == 2


def test_build_command(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("build", str(path), "--target", "jetson-orin", "--kit", str(tmp_path / "kit")) == 0
    assert "./build.sh" in capsys.readouterr().out
    assert cli("build", str(path), "--target", "rtx", "--json", "--quiet") == 0
    printed = json.loads(capsys.readouterr().out)
    assert {engine["component"] for engine in printed["engines"]} == {
        c.name for c in load_bundle(path).manifest.components
    }


def test_device_command(kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from perceiver_runtime.cli.main import main as device_main

    jetson = simulated_jetson(capacity=DEVICE)
    monkeypatch.setattr(api, "load_tensorrt", lambda name: jetson.trt)
    monkeypatch.setattr(library, "load_cudart", lambda: jetson.cuda)
    assert device_main(["build", str(kit), "--workspace", "256MB", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed[0]["target"] == "jetson-orin"
    assert device_main(["build", str(kit), "--target", "mine"]) == 0
    assert "matrix products" in capsys.readouterr().out
    assert (kit / "engines/mine/head.plan").is_file()


@pytest.mark.parametrize("module", ["numpy", "json", "argparse", "perceiver_runtime", "runpy"])
def test_a_kit_runs_nothing_that_lies_in_it(kit: Path, module: str, tmp_path: Path) -> None:
    """From inside and outside, with a module path that names it too."""
    (kit / f"{module}.py").write_text("from pathlib import Path\nPath(__file__).with_name('executed').touch()\n")
    environment = {**os.environ, "PYTHON": sys.executable}
    for place, extra in (
        (kit, {}),
        (tmp_path, {}),
        (kit, {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{kit}:"}),
    ):
        done = subprocess.run(
            [str(kit / "build.sh")],
            cwd=place,
            env={**environment, **extra},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not (kit / "executed").exists()
        assert done.returncode in (3, 4), done.stderr  # refused for the file, or before that for want of TensorRT


def test_a_kit_that_is_not_listed_is_none(path: Path, kit: Path) -> None:
    shutil.copyfile(kit / "kit.json", path / "kit.json")
    jetson = simulated_jetson(capacity=DEVICE)
    with pytest.raises(BundleError, match=r"kit\.json: not listed"):
        build_here(path, jetson.trt, jetson.cuda)


@pytest.mark.parametrize("name", ["../../../home", "..", "a/b", "/tmp/x", "a\0b"])
def test_targets_that_are_no_names(path: Path, kit: Path, name: str) -> None:
    """From the command line, from kit.json, and from the manifest: nothing is written anywhere."""
    jetson = simulated_jetson(capacity=DEVICE)
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(UsageError, match=r"target .*; expected letters"):
        build_here(path, jetson.trt, jetson.cuda, target=name)
    content = json.loads((kit / "kit.json").read_text())
    (kit / "kit.json").write_text(json.dumps({**content, "target": name}))
    tiny_bundles.rehash(kit, "kit.json")
    with pytest.raises(BundleError, match=r"target .*; expected letters"):
        build_here(kit, jetson.trt, jetson.cuda)
    tiny_bundles.change(path, lambda m: m.update(target=name))
    with pytest.raises(BundleError, match=r"target .*; expected letters"):
        build_here(path, jetson.trt, jetson.cuda)
    assert sorted(path.parent.rglob("*")) == before
