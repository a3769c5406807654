"""A bundle that was made with data of a user's own: what it records, and what finds the data again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles
from click.testing import CliRunner
from factories.samples import arrays

import perceiver_deploy as pd
from perceiver_deploy.api.bench import bench
from perceiver_deploy.cli.evaluate import command as evaluate_command
from perceiver_deploy.cli.export import command as export_command
from perceiver_runtime import load_bundle, open_session
from perceiver_runtime.cli.main import main as perceiver_run
from perceiver_runtime.errors import DatasetError, UsageError
from perceiver_runtime.evaluation.evaluate import evaluate as evaluate_here


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another working directory."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


@pytest.fixture
def moved(bundle: Path, archive: Path, elsewhere: Path) -> Path:
    """The bundle with its record, and the data beside it; the recorded place of the data is none."""
    for path in (bundle, bundle.with_name("int8.source.json")):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, elsewhere / path.name)
    record = elsewhere / "int8.source.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "data": str(elsewhere / "nowhere")}))
    shutil.copy(archive, elsewhere / archive.name)
    return elsewhere / "int8"


def test_the_manifest_names_the_data_and_its_uses(bundle: Path, archive: Path) -> None:
    manifest = load_bundle(bundle).manifest
    assert manifest.data is not None
    assert (manifest.data.name, manifest.data.samples, manifest.data.seed) == (archive.name, 60, 0)
    sets = (manifest.data.calibration, manifest.data.golden, manifest.data.evaluation)
    assert [each.samples for each in sets] == [20, 5, 35]
    assert manifest.golden_origin == "mine.npz (5 samples, drawn with seed 0)"
    assert str(archive.parent) not in (bundle / "manifest.json").read_text()
    card = (bundle / "README.md").read_text()
    assert "`mine.npz`: 60 samples, drawn for each use with seed 0" in card
    assert f"| Calibration | 20 | `{manifest.data.calibration.sha256}` |" in card
    assert pd.verify(bundle).passed


def test_evaluation_finds_the_data_from_any_directory(bundle: Path, elsewhere: Path) -> None:
    ((report,),) = pd.evaluate(bundle)
    assert (report.dataset, report.output, report.samples, report.held_out) == ("mine.npz", "logits", 35, True)
    assert report.agreement is not None
    assert report.agreement > 0.8
    assert {shift.component for shift in report.range_shift} == {"encoder", "processor_block", "decoder"}
    assert all(0 <= shift.share < 0.05 for shift in report.range_shift)
    assert pd.bisect(bundle).source == "mine"  # with the calibration samples
    assert pd.bisect(bundle).passed


def test_data_that_lie_beside_the_bundle_are_found_by_name(moved: Path) -> None:
    assert pd.evaluate(moved)[0][0].samples == 35
    (moved.parent / "mine.npz").unlink()
    with pytest.raises(UsageError, match=r"expected mine\.npz.*name it with --data"):
        pd.evaluate(moved)


@pytest.mark.parametrize("name", ["../mine.npz", "data/../mine.npz", "{folder}/mine.npz"])
def test_a_manifest_names_no_other_place(moved: Path, name: str) -> None:
    tiny_bundles.change(moved, lambda manifest: manifest["data"].update(name=name.format(folder=moved.parent)))
    (moved.parent / "data").mkdir()
    with pytest.raises(UsageError, match="found none"):
        pd.evaluate(moved)


@pytest.mark.parametrize(("count", "seed", "message"), [(59, 0, "59 samples, not 60"), (60, 1, "other samples")])
def test_changed_data_are_refused(moved: Path, count: int, seed: int, message: str) -> None:
    np.savez(moved.parent / "mine.npz", **arrays(count, seed))  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=message):
        pd.evaluate(moved)


def test_other_data_are_evaluated_whole(bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", **arrays(12, 3))  # type: ignore[arg-type]
    ((report,),) = pd.evaluate(bundle, data=tmp_path / "test.npz")
    assert (report.samples, report.held_out) == (12, False)
    assert pd.evaluate(bundle, data=tmp_path / "test.npz", samples=5)[0][0].samples == 5
    with pytest.raises(DatasetError, match="at least 13 samples, got 12"):
        pd.evaluate(bundle, data=tmp_path / "test.npz", samples=13)
    with pytest.raises(UsageError, match="--samples"):
        pd.evaluate(bundle, samples=5)
    np.savez(tmp_path / "test.npz", pixel_values=arrays(3)["pixel_values"])
    with pytest.raises(DatasetError, match="targets"):
        pd.evaluate(bundle, data=tmp_path / "test.npz")


def test_activations_outside_the_calibrated_ranges_are_warned_of(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = arrays(12, 3)
    np.savez(tmp_path / "loud.npz", pixel_values=given["pixel_values"] * 4, logits=given["logits"])
    ((report,),) = pd.evaluate(bundle, data=tmp_path / "loud.npz")
    encoder = next(shift for shift in report.range_shift if shift.component == "encoder")
    assert encoder.share > 0.001
    assert encoder.tensor_share >= encoder.share
    assert "outside the calibrated ranges" in caplog.text
    result = CliRunner().invoke(evaluate_command, [str(bundle), "--data", str(tmp_path / "loud.npz")])
    assert "Activations outside the calibrated ranges of int8: encoder" in result.output.replace("\n", " ")


METRIC = """
def worst(outputs, targets):
    best = outputs["logits"].argmax(axis=1)
    return {"accuracy": best == targets["logits"], "distance": abs(best - targets["logits"]).mean()}

def text(outputs, targets):
    return "good"
"""


def test_a_metric_of_the_users_is_taken(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METRIC)
    ((plain,),) = pd.evaluate(bundle)
    ((report,),) = pd.evaluate(bundle, metric=f"{tmp_path}/mine.py:worst", batch=7)
    assert report.deployed.values["accuracy"] == pytest.approx(plain.deployed.accuracy)
    assert set(report.difference) == {"accuracy", "distance"}
    arguments = [str(bundle), "--metric", f"{tmp_path}/mine.py:worst", "--max-accuracy-drop", "100"]
    result = CliRunner().invoke(evaluate_command, arguments)
    assert (result.exit_code, "distance" in result.output) == (0, True)
    with pytest.raises(UsageError, match="expected numbers by name"):
        pd.evaluate(bundle, metric=f"{tmp_path}/mine.py:text")


def test_code_runs_only_where_it_is_named_and_as_it_was(checkpoint: Path, elsewhere: Path) -> None:
    code = elsewhere / "mine.py"
    code.write_text("from factories.samples import arrays\n\ndef make():\n    yield arrays()\n")
    out = elsewhere / "bundle"
    pd.export(checkpoint, out, data=f"{code}:make")
    record = load_bundle(out).manifest.data
    assert record is not None
    assert (record.name, len(record.code_sha256)) == ("mine.py:make", 64)
    with pytest.raises(UsageError, match=r"runs only where it is named: --data PATH/mine\.py:make"):
        pd.evaluate(out)
    assert pd.evaluate(out, data=f"{code}:make")[0][0].samples == 26
    code.write_text(code.read_text() + "raise SystemExit\n")
    with pytest.raises(UsageError, match="expected the code that the bundle was made with"):
        pd.evaluate(out, data=f"{code}:make")


def test_bad_data_leave_nothing_behind(checkpoint: Path, tmp_path: Path) -> None:
    given = arrays()
    given["pixel_values"][7, 0, 1, 2] = np.nan
    np.savez(tmp_path / "mine.npz", **given)  # type: ignore[arg-type]
    before = sorted(tmp_path.iterdir())
    arguments = [str(checkpoint), "-o", str(tmp_path / "out"), "--precision", "int8", "--data"]
    result = CliRunner().invoke(export_command, [*arguments, str(tmp_path / "mine.npz")])
    assert isinstance(result.exception, DatasetError)
    assert "mine.npz: sample 7: pixel_values: expected finite numbers" in str(result.exception)
    assert sorted(tmp_path.iterdir()) == before
    result = CliRunner().invoke(export_command, [*arguments[:-1], "--golden-samples", "4"])
    assert isinstance(result.exception, UsageError)
    assert "--golden-samples" in str(result.exception)
    count = iter(range(100))
    with pytest.raises(DatasetError, match="the same samples in every pass"):
        pd.export(checkpoint, tmp_path / "out", data=lambda: iter([arrays(seed=max(next(count) - 2, 0))]))
    assert sorted(tmp_path.iterdir()) == before


def test_a_budget_is_held_on_the_users_samples(checkpoint: Path, archive: Path, tmp_path: Path) -> None:
    options = {"precision": "int8-dynamic", "max_accuracy_drop": 100.0}
    pd.export(checkpoint, tmp_path / "b", data=archive, **options)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "b" / "precision" / "pareto.json").read_text())["chosen"] == 0
    assert "| Output | Reference | This bundle | Points lost |" in (tmp_path / "b" / "README.md").read_text()
    with pytest.raises(UsageError, match="no targets: no accuracy"):
        pd.dry_run(checkpoint, tmp_path / "c", data=[{"pixel_values": arrays()["pixel_values"]}], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_bench_takes_any_batch_of_the_profile(bundle: Path, batch: int) -> None:
    assert bench(bundle, batch=batch, iterations=2, warmup=0)[0].batch == batch


def test_the_device_evaluates_an_archive(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test.npz"
    np.savez(path, **arrays(70, 3))  # type: ignore[arg-type]
    ((report,),) = pd.evaluate(bundle, data=path, threads=1)
    with open_session(bundle, threads=1) as session:
        (found,) = evaluate_here(session, path, batch=64)
        assert evaluate_here(session, path, batch=9)[0].metrics.accuracy == found.metrics.accuracy
    assert (found.output, found.task, found.samples) == ("logits", "classification", 70)
    assert found.metrics == report.deployed
    assert perceiver_run(["evaluate", str(bundle), "--data", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["metrics"]["accuracy"] == found.metrics.accuracy
    assert perceiver_run(["evaluate", str(bundle), "--data", str(path)]) == 0
    said = capsys.readouterr()
    assert "top_5" in said.out
    assert "calibrated it" not in said.err
    np.savez(tmp_path / "mine.npz", **arrays(70, 3))  # type: ignore[arg-type]
    assert perceiver_run(["evaluate", str(bundle), "--data", str(tmp_path / "mine.npz")]) == 0
    assert "some of its samples calibrated it" in capsys.readouterr().err
