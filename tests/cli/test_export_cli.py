"""The commands of `perceiver-export`, called as a user's shell calls them: results, streams, exit codes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_bundles
from onnx import numpy_helper

import perceiver_deploy
from perceiver_deploy.cli import main as program

pytestmark = pytest.mark.xdist_group("cli")


def test_help_names_every_command_and_exit_code(perceiver_export):
    result = perceiver_export("--help")
    assert result.returncode == 0
    for word in ("models", "export", "verify", "evaluate", "bench", "inspect", "demo", "doctor", "Exit codes"):
        assert word in result.stdout


def test_models_json_lists_name_family_parameters_pretrained(perceiver_export):
    result = perceiver_export("models", "--json")
    listed = {m["name"]: m for m in json.loads(result.stdout)}
    shipped = listed["fashion-perceiver"]
    assert shipped["family"] == "patch-classifier"
    assert shipped["pretrained"] is True
    assert 100_000 < shipped["parameters"] < 500_000


def test_dry_run_plans_and_writes_nothing(perceiver_export, tmp_path):
    result = perceiver_export("export", "fashion-perceiver", "-o", tmp_path / "b", "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert [c["name"] for c in plan["components"]] == ["encoder", "processor_block", "decoder"]
    assert list(tmp_path.iterdir()) == []


def test_export_verifies_and_keeps_progress_off_stdout(perceiver_export, tmp_path):
    result = perceiver_export("export", "fashion-perceiver", "-o", tmp_path / "b", "--json")
    assert result.returncode == 0, result.stderr
    records = json.loads(result.stdout)
    assert {r["component"] for r in records} == {"encoder", "processor_block", "decoder", "pipeline"}
    assert "trace" in result.stderr
    quiet = perceiver_export("export", "fashion-perceiver", "-o", tmp_path / "c", "--quiet", "--json")
    assert quiet.stderr == ""


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-dynamic-reduced"])
def test_verify_holds_at_every_precision(perceiver_export, bundles, precision):
    result = perceiver_export("verify", bundles[precision], "--json")
    assert result.returncode == 0, result.stderr
    assert all(r["passed"] for r in json.loads(result.stdout))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-dynamic-reduced"])
def test_a_swapped_weight_fails_verification_of_its_component_alone(perceiver_export, bundles, tmp_path, precision):
    """Query and key weights have one shape: only numbers can tell that they changed places."""
    bundle = tmp_path / "swapped"
    shutil.copytree(bundles[precision], bundle)
    _swap_first_equal_weights(bundle / "onnx" / "processor_block.onnx")
    _rehash(bundle)
    result = perceiver_export("verify", bundle, "--json")
    assert result.returncode == 1, result.stderr
    failed = {r["component"] for r in json.loads(result.stdout) if not r["passed"]}
    assert failed == {"processor_block", "pipeline"}


def test_python_and_the_command_give_the_same_verdict(perceiver_export, bundles, tmp_path):
    """Numbers of FP32 graphs pass INT8's tolerances; that they are not INT8 fails."""
    bundle = tmp_path / "mislabelled"
    shutil.copytree(bundles["int8"], bundle)
    shutil.rmtree(bundle / "onnx")
    shutil.copytree(bundles["fp32"] / "onnx", bundle / "onnx")
    _rehash(bundle)
    found = perceiver_deploy.verify(bundle)
    assert found.parity.passed
    assert {breach.component for breach in found.breaches} == {"encoder", "processor_block", "decoder"}
    assert not found.passed
    assert perceiver_export("verify", bundle, "--json", "--failures", tmp_path / "failures").returncode == 1
    with perceiver_deploy.open_session(bundle) as session:
        assert not perceiver_deploy.verify(session).passed
    for precision in ("fp32", "int8"):
        assert perceiver_deploy.verify(bundles[precision]).passed


@pytest.mark.parametrize(
    ("precision", "budget"),
    [("fp32", 0.0), ("fp16", 0.1), ("int8", 1.0), ("int8-dynamic-reduced", 1.0)],
)
def test_evaluate_keeps_the_accuracy_budget_on_at_least_1000_images(perceiver_export, bundles, precision, budget):
    result = perceiver_export("evaluate", bundles[precision], "--max-accuracy-drop", budget, "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)[0]
    assert report["samples"] >= 1000
    assert report["reference"]["accuracy"] >= 0.88


def test_evaluate_says_what_broke_the_budget(perceiver_export, bundles, tmp_path):
    bundle = tmp_path / "swapped"
    shutil.copytree(bundles["fp32"], bundle)
    _swap_first_equal_weights(bundle / "onnx" / "processor_block.onnx")
    _rehash(bundle)
    result = perceiver_export("evaluate", bundles["fp32"], bundle, "--max-accuracy-drop", "0", "-q")
    assert result.returncode == 1
    assert re.fullmatch(
        r"FAILED: .*swapped: accuracy of logits: reference 0\.8\d+, deployed 0\.\d+: \d+\.\d+ points lost, 0 allowed\n",
        result.stderr,
    )


def test_bench_compares_with_eager_on_more_rows_than_the_golden_sample_has(perceiver_export, bundles):
    (report,) = json.loads(
        perceiver_export("bench", bundles["fp32"], "--iterations", "5", "--batch", "20", "--json").stdout
    )
    assert report["batch"] == 20
    assert min(report["session"]["p50"], report["peers"]["torch"]["p50"]) > 0
    ratio = report["speedups"]["torch"]
    assert ratio["low"] <= ratio["median"] <= ratio["high"]


def test_inspect_shows_the_shared_block_once(perceiver_export, bundles):
    manifest = json.loads(perceiver_export("inspect", bundles["fp32"], "--json").stdout)
    assert manifest["conditions"]["model"] == "fashion-perceiver"
    (step,) = [s for s in manifest["pipeline"]["steps"] if s["component"] == "processor_block"]
    assert step["repeat"] >= 2
    assert sum(c["name"] == "processor_block" for c in manifest["components"]) == 1


def test_inspect_shows_how_many_bits_weights_have_and_what_stays_in_fp32(perceiver_export, bundles):
    shown = perceiver_export("inspect", bundles["int8-dynamic-reduced"], "--precision")
    assert shown.returncode == 0, shown.stderr
    assert "7-bit weights" in shown.stdout
    assert "tokens.project" in shown.stdout
    report = json.loads(perceiver_export("inspect", bundles["int8-dynamic-reduced"], "--precision", "--json").stdout)
    assert all(entry["reduced_range"] and entry["kernels"] == {"int8-dynamic": 1.0} for entry in report)


def test_inspect_shows_rules_and_precision_together(perceiver_export, bundles):
    shown = perceiver_export("inspect", bundles["int8-dynamic-reduced"], "--rules", "--precision")
    assert shown.returncode == 0, shown.stderr
    assert "what or why not" in shown.stdout
    assert "kept in FP32" in shown.stdout
    both = json.loads(
        perceiver_export("inspect", bundles["int8-dynamic-reduced"], "--rules", "--precision", "--json").stdout
    )
    for part in ("rules", "precision"):
        alone = json.loads(perceiver_export("inspect", bundles["int8-dynamic-reduced"], f"--{part}", "--json").stdout)
        assert both[part] == alone


def test_doctor_finds_this_machine_fit(perceiver_export):
    result = perceiver_export("doctor", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["ok"] is True


INT8 = ("export", "fashion-perceiver", "-o", "{new}", "--precision", "int8")
WRONG = {
    "unknown command": (["exprot"], 2, "exprot"),
    "unknown option": (["verify", "b", "--fast"], 2, "--fast"),
    "unknown model": (["export", "fashion-perciever", "-o", "{new}"], 2, "did you mean fashion-perceiver?"),
    "unknown precision": (["export", "fashion-perceiver", "-o", "{new}", "--precision", "int7"], 2, "int7"),
    "unknown target": (["export", "fashion-perceiver", "-o", "{new}", "--target", "abacus"], 2, "abacus"),
    "7 bits of what has none": (
        ["export", "fashion-perceiver", "-o", "{new}", "--precision", "fp16", "--reduce-range"],
        2,
        "--reduce-range",
    ),
    "7 bits for nothing": (
        ["export", "fashion-perceiver", "-o", "{new}", "--precision", "int8", "--target", "rtx", "--reduce-range"],
        2,
        "leave it out",
    ),
    "7 bits in a dry run": (
        ["export", "fashion-perceiver", "-o", "{new}", "--reduce-range", "--dry-run"],
        2,
        "got fp32",
    ),
    "ranges of run time on a GPU": (
        ["export", "fashion-perceiver", "-o", "{new}", "--precision", "int8-dynamic", "--target", "rtx"],
        2,
        "TensorRT reads INT8 ranges from the graph",
    ),
    "calibration of what has none": (
        ["export", "fashion-perceiver", "-o", "{new}", "--precision", "int8-dynamic", "--calibration", "entropy"],
        2,
        "int8-dynamic is not calibrated",
    ),
    "a backend that would run it in FP32": (["verify", "{dynamic}", "--backend", "openvino"], 4, "got int8-dynamic"),
    "destination exists": (["export", "fashion-perceiver", "-o", "{bundle}"], 2, "exists"),
    "destination exists, of a dry run": (
        ["export", "fashion-perceiver", "-o", "{bundle}", "--dry-run"],
        2,
        "exists",
    ),
    "destination below a file": (
        ["export", "fashion-perceiver", "-o", "/dev/null/b", "--dry-run"],
        2,
        "/dev/null is no directory",
    ),
    "destination with a name too long": (["export", "fashion-perceiver", "-o", "x" * 250], 2, "File name too long"),
    "calibration of no component, in a dry run": (
        [
            *[
                "export",
                "fashion-perceiver",
                "--precision",
                "int8",
                "--calibration",
                "brain=entropy",
                "--dry-run",
                "-o",
            ],
            "{new}",
        ],
        2,
        "got brain",
    ),
    "no calibration method, in a dry run": ([*INT8, "--calibration", "guess", "--dry-run"], 2, "got guess"),
    "two calibration methods": (
        [*INT8, "--calibration", "minmax", "--calibration", "entropy"],
        2,
        "one method for all",
    ),
    "budget of what has none, in a dry run": (
        ["export", "fashion-perceiver", "-o", "{new}", "--max-accuracy-drop", "1", "--dry-run"],
        2,
        "--max-accuracy-drop",
    ),
    "two forms at once": (["evaluate", "{bundle}", "--markdown", "--json"], 2, "ask for one"),
    "curves without a kind": (["growth", "{bundle}", "-o", "curves.txt"], 2, ".svg"),
    "curves nowhere": (["growth", "{new}", "-o", "/dev/null/c.svg"], 2, "/dev/null"),
    "failures in a file": (["verify", "{new}", "--failures", "{bundle}/manifest.json"], 2, "no directory"),
    "replays in a file": (["bisect", "{new}", "--out", "{bundle}/manifest.json"], 2, "no directory"),
    "demo in a file": (["demo", "-o", "{bundle}/manifest.json"], 2, "no directory"),
    "missing out": (["export", "fashion-perceiver"], 2, "--out"),
    "no such bundle": (["verify", "{new}"], 3, "expected a bundle directory"),
    "not a checkpoint": (["export", "{empty}", "-o", "{new}"], 3, "config.json"),
    "unknown backend": (["verify", "{bundle}", "--backend", "abacus"], 2, "abacus"),
    "backend not here": (["verify", "{bundle}", "--backend", "onnxruntime-cuda"], 4, "CUDA"),
    "batch too large": (["bench", "{bundle}", "--batch", "9999"], 2, "--batch"),
    "too many threads": (["bench", "{bundle}", "--threads", "100000"], 2, "--threads"),
    "no iterations": (["bench", "{bundle}", "--iterations", "0"], 2, "--iterations"),
    "near a command": (["benhc", "{bundle}"], 2, "did you mean bench?"),
    "near an option": (["bench", "{bundle}", "--itrations", "5"], 2, "--iterations"),
    "near a precision": (["export", "fashion-perceiver", "-o", "{new}", "--precision", "int"], 2, "did you mean int"),
    "near a target": (["check", "{bundle}", "--target", "jetson-orinn"], 2, "did you mean jetson-orin?"),
    "near a backend": (["verify", "{bundle}", "--backend", "openvin"], 2, "did you mean openvino?"),
    "size without a unit": (["check", "{bundle}", "--target", "rtx", "--memory", "8"], 2, "--memory"),
    "a range and a largest batch": (
        ["export", "fashion-perceiver", "-o", "{new}", "--max-batch", "4", "--range", "batch=1:1:8"],
        2,
        "--max-batch",
    ),
    "no number of points": (["evaluate", "{bundle}", "--max-accuracy-drop", "nan"], 2, "--max-accuracy-drop"),
    "an accuracy that must rise": (["evaluate", "{bundle}", "--max-accuracy-drop", "-1"], 2, "--max-accuracy-drop"),
    "no number of bytes": (["export", "fashion-perceiver", "-o", "{new}", "--max-memory", "nanMB"], 2, "--max-memory"),
    "memory below nothing": (["check", "{bundle}", "--target", "rtx", "--memory", "-3"], 2, "--memory"),
    "no workspace": (["build", "{bundle}", "--target", "rtx", "--workspace", "0"], 2, "--workspace"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_refused_with_its_exit_code_and_reason(bundles, tmp_path, capsys, case):
    """In this process: what is refused starts nothing."""
    arguments, code, reason = WRONG[case]
    places = {"new": tmp_path / "new", "bundle": bundles["fp32"], "empty": tmp_path / "empty"}
    places["dynamic"] = bundles["int8-dynamic-reduced"]
    places["empty"].mkdir()
    with pytest.raises(SystemExit) as end:
        program.main([a.format(**places) for a in arguments])
    told = capsys.readouterr().err
    assert end.value.code == code, told
    assert reason in told
    assert "Traceback" not in told
    assert not places["new"].exists()


def _swap_first_equal_weights(path: Path) -> None:
    """Exchange the values of the first two square weight matrices of the graph (query and key of one layer)."""
    model = onnx.load(path)
    weights = [w for w in model.graph.initializer if len(w.dims) == 2 and w.dims[0] == w.dims[1]]
    first, second = weights[0], next(w for w in weights[1:] if w.data_type == weights[0].data_type)
    a, b = numpy_helper.to_array(first), numpy_helper.to_array(second)
    assert not np.array_equal(a, b)
    first.CopyFrom(numpy_helper.from_array(b, first.name))
    second.CopyFrom(numpy_helper.from_array(a, second.name))
    onnx.save(model, path)


def _rehash(bundle: Path) -> None:
    """Make the manifest vouch for the files as they are now: what an attacker or a careless tool would do."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in manifest["files"]:
        tiny_bundles.rehash(bundle, name)
