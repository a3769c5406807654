"""From a workstation to a device: engines where they can be built, a kit where not. Devices here are SIMULATED."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_bundles
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from engines import seeded
from engines.simulation.jetson import SimulatedJetson, simulated_jetson

from perceiver_deploy.cli.main import main
from perceiver_exporters.engines import build
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.cuda import library
from perceiver_runtime.errors import BuildError, BundleError, CheckError, UnavailableError, UsageError
from perceiver_runtime.signing import sign_bundle
from perceiver_runtime.tensorrt import api
from perceiver_runtime.tensorrt.builder.build import BuildRequest, build_engine
from perceiver_runtime.tensorrt.builder.device_build import build_here
from perceiver_runtime.tensorrt.builder.kit import read_kit
from perceiver_runtime.tensorrt.sidecar import read_sidecar
from perceiver_runtime.tensors import Profile

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


def test_build_options_that_contradict_or_can_not_be_written(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from perceiver_runtime.cli.main import main as device_main

    monkeypatch.setattr(api, "load_tensorrt", lambda _: pytest.fail("must refuse before TensorRT is loaded"))
    for options in (["--all"], ["--workspace", "256MB"], ["--attention", "products"]):
        assert device_main(["build", str(kit), "--reuse", str(kit), *options]) == 2
        assert "--reuse: expected without --all, --workspace and --attention" in capsys.readouterr().err
    assert device_main(["build", str(kit), "--timing-cache", str(tmp_path / "nowhere/timings")]) == 2
    assert "nowhere/timings: No such file or directory" in capsys.readouterr().err


def test_a_build_says_that_the_signature_is_gone(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from perceiver_runtime.cli.main import main as device_main

    key = tmp_path / "key.pem"
    private = ed25519.Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    sign_bundle(kit, key)
    jetson = simulated_jetson(capacity=DEVICE)
    monkeypatch.setattr(api, "load_tensorrt", lambda _: jetson.trt)
    monkeypatch.setattr(library, "load_cudart", lambda: jetson.cuda)
    assert device_main(["build", str(kit), "--workspace", "256MB"]) == 0
    assert "the signature did not cover the new engines and was removed; sign the bundle" in capsys.readouterr().err
    with load_bundle(kit) as bundle:
        assert bundle.signature is None


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ((), "component head: no profile for latents, whose shape is dynamic"),
        ((Profile("default", {}),), r"profile default has no range for batch of latents: float32.*; export again"),
    ],
)
def test_sizes_that_no_profile_covers(path: Path, profiles: tuple[Profile, ...], message: str) -> None:
    with load_bundle(path) as bundle:
        inputs = bundle.manifest.component("head").inputs
    with pytest.raises(BuildError, match=message):
        build_engine(simulated_jetson().trt, BuildRequest("head", path / "onnx/head.onnx", inputs, profiles, "0" * 64))


@pytest.fixture
def forget() -> Iterator[None]:
    """Modules that a test imports from a folder of its own."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if name.partition(".")[0] in (*api.MODULES, "tensorrt_rtx_bindings"):
            del sys.modules[name]


@pytest.mark.usefixtures("forget")
def test_modules_of_tensorrt_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"TensorRT module: expected one of tensorrt, .*, got 'torch'"):
        api.load_tensorrt("torch")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tensorrt_lean").mkdir()
    said = r"tensorrt_lean: .* got a directory named tensorrt_lean on the module path.*; install NVIDIA's lean runtime"
    with pytest.raises(UnavailableError, match=said):
        api.load_tensorrt("tensorrt_lean")


@pytest.mark.usefixtures("forget")
def test_rtx_is_nvidias_own_module_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tensorrt_rtx.py").write_text("__version__ = '1.9.9'\n")
    assert api.load_tensorrt("tensorrt_rtx").__version__ == "1.9.9"


def test_rtx_without_its_libraries_is_refused_with_both_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(UnavailableError, match="pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"):
        api.load_tensorrt("tensorrt_rtx")


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
