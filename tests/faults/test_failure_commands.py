"""What a failed check leaves behind, by the commands that a user types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perceiver_deploy.api import bisect as bisection
from perceiver_deploy.cli.main import group
from perceiver_exporters.component import Blueprint
from perceiver_runtime.errors import BundleError

from .conftest import Healthy
from .seeded import BLOCK, FAULTS, seed


def run(*arguments: object) -> Result:
    """The command, in this process; its exit code is its return value."""
    return CliRunner().invoke(group, [str(a) for a in arguments], standalone_mode=False)


@pytest.fixture
def broken(healthy: Healthy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return seed(healthy("perceiver", "fp32"), tmp_path / "broken", BLOCK, FAULTS["tanh for erf"].edit)


def test_a_failed_verify_writes_what_replays_it(broken: Path, tmp_path: Path) -> None:
    result = run("verify", broken)
    assert result.return_value == 1
    command = f"perceiver-export replay {tmp_path.resolve()}/perceiver-failures/broken/{BLOCK}"
    assert f"{BLOCK}: inputs written; replay them: {command}" in result.stderr
    assert f"perceiver-export bisect {broken.resolve()}" in result.stderr
    assert {path.name for path in (tmp_path / "perceiver-failures/broken").iterdir()} == {BLOCK, "pipeline"}
    for name in (BLOCK, "pipeline"):
        replayed = run("replay", tmp_path / "perceiver-failures/broken" / name, "--json")
        assert replayed.return_value == 1
        assert {report["component"] for report in json.loads(replayed.stdout)} == {name}


def test_a_healthy_verify_writes_nothing(healthy: Healthy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("verify", healthy("perceiver", "fp32")).return_value == 0
    assert list(tmp_path.iterdir()) == []


def test_failures_go_where_the_user_says(broken: Path, tmp_path: Path) -> None:
    assert run("verify", broken, "--failures", tmp_path / "here").return_value == 1
    assert (tmp_path / "here" / BLOCK / "replay.json").exists()
    assert not (tmp_path / "perceiver-failures").exists()


def test_bisect_names_the_node_and_its_replay_fails_until_the_graph_is_right(
    broken: Path, sources: Mapping[str, Blueprint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bisection, "_source", lambda *_: (sources["perceiver"], "toy"))
    result = run("bisect", broken, "--json")
    assert result.return_value == 1, result.stderr
    (diagnosis,) = json.loads(result.stdout)["diagnoses"]
    assert (diagnosis["component"], diagnosis["node"], diagnosis["op_type"]) == (BLOCK, "0.mlp.1/Gelu", "Gelu")
    assert run("replay", diagnosis["replay"]).return_value == 1
    table = run("bisect", broken)
    assert "0.mlp.1/Gelu: attribute approximate" in table.stdout
    assert f"perceiver-export replay {Path(diagnosis['replay']).resolve()}" in table.stdout


def test_bisect_says_that_the_source_was_not_reached(broken: Path) -> None:
    result = run("bisect", broken, "--json")
    assert result.return_value == 1
    found = json.loads(result.stdout)
    assert found["source"].startswith("not reached: reference: expected the weights of the bundle")
    assert [(diagnosis["component"], diagnosis["kind"]) for diagnosis in found["diagnoses"]] == [(BLOCK, "component")]


def test_a_given_source_that_is_not_there_is_refused(broken: Path) -> None:
    result = run("bisect", broken, "--reference", "nothing")
    assert result.exception is not None
    assert "nothing" in str(result.exception)


def test_a_directory_without_a_replay_is_refused(tmp_path: Path) -> None:
    result = run("replay", tmp_path)
    assert isinstance(result.exception, BundleError)
    assert "expected a replay" in str(result.exception)


def test_polygraphy_runs_a_replay_as_it_is(
    broken: Path, sources: Mapping[str, Blueprint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`polygraphy run model.onnx --onnxrt --load-inputs inputs.json --load-outputs expected.json`."""
    from polygraphy.tools import main as polygraphy

    monkeypatch.setattr(bisection, "_source", lambda *_: (sources["perceiver"], "toy"))
    (diagnosis,) = json.loads(run("bisect", broken, "--json").stdout)["diagnoses"]
    monkeypatch.chdir(diagnosis["replay"])
    command = "polygraphy run model.onnx --onnxrt --load-inputs inputs.json --load-outputs expected.json --rtol 0"
    for atol, code in (("1e-6", 1), ("1", 0)):
        monkeypatch.setattr("sys.argv", [*command.split(), "--atol", atol])
        assert polygraphy() == code
