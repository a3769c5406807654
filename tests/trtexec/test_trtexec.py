"""trtexec's commands for a bundle, and its published files read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles
from trtexec import published

from perceiver_deploy.cli.main import main
from perceiver_exporters.trtexec.commands import trtexec_commands, write_trtexec
from perceiver_exporters.trtexec.results import LayerInfo, read_layers, read_profile, read_times, read_trtexec
from perceiver_runtime import BundleError, UnavailableError, UsageError
from perceiver_runtime.golden import load_golden


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundles.write(tmp_path_factory.mktemp("tiny") / "b", tiny_bundles.full_model(), tiny_bundles.feeds())


def _options(bundle: Path, component: str, **given: str) -> list[str]:
    (command,) = (c for c in trtexec_commands(bundle, "jetson-orin", **given) if c.component == component)
    return list(command.options)


def test_a_command_has_profiles_shapes_and_inputs_of_its_component(bundle: Path) -> None:
    options = _options(bundle, "fold")  # runs on chunks of 3 of at most 32 keys
    assert "--minShapes=keys:1x1x4,total:1x4" in options
    assert "--optShapes=keys:1x3x4,total:1x4" in options
    assert "--maxShapes=keys:4x3x4,total:4x4" in options
    assert "--shapes=keys:1x3x4,total:1x4" in options
    assert "--loadInputs=keys:inputs/fold-0.bin,total:inputs/fold-1.bin" in options
    assert {"--noTF32", "--memPoolSize=workspace:1024M", "--exportTimes=fold.times.json"} <= set(options)


def test_types_are_the_graphs_on_every_version(bundle: Path) -> None:
    ten, eleven = _options(bundle, "head"), _options(bundle, "head", tensorrt="11.1")
    assert {"--stronglyTyped", "--useCudaGraph"} <= set(ten)
    assert "--includeDataTransfers" in eleven
    assert "--stronglyTyped" not in eleven
    assert not {"--fp16", "--int8", "--best"} & {*ten, *eleven}


def test_several_profiles_have_their_numbers(tmp_path: Path) -> None:
    tiny_bundles.write(tmp_path / "b", tiny_bundles.full_model(), tiny_bundles.feeds())
    tiny_bundles.change(tmp_path / "b", lambda m: m["profiles"].append({**m["profiles"][0], "name": "second"}))
    options = _options(tmp_path / "b", "head")
    assert options[0] == "--profile=0"
    assert options[4] == "--profile=1"
    assert options[1] == options[5] == "--minShapes=latents:1x5x6"


def test_the_script_runs_every_component_with_the_golden_inputs(bundle: Path, tmp_path: Path) -> None:
    script = write_trtexec(trtexec_commands(bundle, "jetson-orin"), tmp_path / "out")
    fake = tmp_path / "trtexec"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> called\n[ -f "${1#--onnx=}" ]\n', encoding="utf-8")
    fake.chmod(0o755)
    subprocess.run([script, os.path.relpath(bundle)], check=True, env={**os.environ, "TRTEXEC": str(fake)})
    called = (tmp_path / "out" / "called").read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("--onnx=") for line in called) == 6
    assert f"--onnx={bundle}/onnx/fold.onnx" in called
    from perceiver_runtime import load_bundle

    with load_bundle(bundle) as loaded:
        keys = load_golden(loaded)[0].components["fold"].inputs["keys"]
    assert np.array_equal(np.fromfile(tmp_path / "out/inputs/fold-0.bin", np.float32), keys.reshape(-1))


def test_what_has_no_trtexec_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no trtexec"):
        trtexec_commands(bundle, "rtx")
    with pytest.raises(UsageError, match="cpu runs ONNX"):
        trtexec_commands(bundle)
    with pytest.raises(UnavailableError, match=r"expected TensorRT 10\.3"):
        trtexec_commands(bundle, "jetson-orin", "8.5")
    with pytest.raises(UsageError, match="inside the bundle"):
        write_trtexec((), bundle / "out")


def _write(folder: Path, **contents: str) -> Path:
    for name, content in contents.items():
        (folder / f"encoder.{name}.json").write_text(content, encoding="utf-8")
    return folder


def test_published_files_are_read(tmp_path: Path) -> None:
    _write(tmp_path, times=published.TIMES, profile=published.PROFILE, graph=published.LAYERS)
    (result,) = read_trtexec(tmp_path)
    assert result.component == "encoder"
    assert result.times is not None
    assert (result.times.runs, result.times.compute, result.times.latency) == (3, 0.271968, 0.271968)
    assert result.times.enqueue == pytest.approx(0.03154)
    assert result.profile is not None
    assert result.profile.runs == 4216
    assert result.profile.milliseconds == pytest.approx(0.0122041 + 0.0107465)
    assert result.profile.layers[0].median is None
    assert result.layers is not None
    assert result.layers[0] == LayerInfo("QuantizeLinear_2", "Reformat", "")
    assert result.layers[1].tactic.startswith("volta_int8x4")


def test_medians_and_layers_without_details(tmp_path: Path) -> None:
    _write(tmp_path, profile=published.PROFILE_WITH_MEDIANS, graph=published.NAMES_ALONE)
    assert read_profile(tmp_path / "encoder.profile.json").layers[0].median == 0.027872
    assert read_layers(tmp_path / "encoder.graph.json")[1] == LayerInfo("resnetv15_conv0_fwd")


def test_ours_stand_beside_nvidias_and_what_is_missing_is_said(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ours").mkdir()
    _write(tmp_path, times=published.TIMES)
    _write(tmp_path / "ours", profile=published.PROFILE_WITH_MEDIANS)
    with pytest.raises(SystemExit) as ended:
        main(["trtexec", str(bundle), "--read", str(tmp_path), "--layers", str(tmp_path / "ours")])
    assert not ended.value.code
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("encoder"))
    expected = ["encoder", "0.2720", "0.2884", "not measured", "0.0280", "not measured"]
    assert [text.strip() for text in row.split("  ") if text.strip()] == expected


@pytest.mark.parametrize(
    ("reader", "content", "says"),
    [
        (read_times, "[]", "no runs"),
        (read_times, "{}", "expected a list of objects"),
        (read_times, '[{"startEnqMs": 1}]', "expected a number of endEnqMs"),
        (read_times, "[", "no valid JSON"),
        (read_profile, '[{"name": "x"}]', "begins with the count"),
        (read_profile, '[{"count": 1}, {"averageMs": 1}]', "expected a name under name"),
        (read_layers, "[]", "expected an object with Layers"),
        (read_layers, '{"Layers": [3]}', "expected layers with a Name"),
        (read_layers, '{"Layers": [{}]}', "expected a name under Name"),
    ],
)
def test_other_files_are_refused(reader, content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=says):
        reader(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--read", "{}"], "found none"),
        (["--layers", "{}"], "--layers goes with --read"),
        (["--read", "{}", "-o", "{}"], "leave out --target"),
    ],
)
def test_wrong_use_of_the_command(
    arguments: list[str], says: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trtexec", str(bundle), *(argument.format(tmp_path) for argument in arguments)])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_the_command_prints_commands(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["trtexec", str(bundle), "--target", "jetson-thor"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(f"trtexec --onnx={bundle}/onnx/encoder.onnx --minShapes=")


def test_ours_without_files_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, times=published.TIMES)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="perceiver-run layers"):
        read_trtexec(tmp_path, tmp_path / "none")
