"""Hub ids, from a local cache laid out as huggingface_hub does: no test uses the network."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from models.oracle import relative, saved
from models.test_huggingface_parity import CASES

import perceiver_deploy
from perceiver_deploy.checkpoints import LoadOptions, load
from perceiver_deploy.cli.main import main
from perceiver_deploy.sources.reference import reference_of
from perceiver_deploy.sources.source_record import record_path
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import CheckpointError, UnavailableError, UsageError

MODEL = "acme/tiny-perceiver"
FIRST, SECOND = "1" * 40, "2" * 40


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two revisions of one model, `main` being the second, whose weights are a pickle."""
    repository = tmp_path / "cache" / f"models--{MODEL.replace('/', '--')}"
    saved(CASES[0].oracle(), repository / "snapshots" / FIRST)
    oracle = CASES[0].oracle(seed=1)
    saved(oracle, repository / "snapshots" / SECOND)
    (repository / "snapshots" / SECOND / "model.safetensors").unlink()
    torch.save(oracle.state_dict(), repository / "snapshots" / SECOND / "pytorch_model.bin")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(SECOND)
    return tmp_path / "cache"


def export(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["export", *map(str, arguments)])
    return int(exit_.value.code)  # type: ignore[arg-type]


def test_a_revision_is_read_from_the_cache(cache):
    inputs = CASES[0].inputs()
    directory = cache / f"models--{MODEL.replace('/', '--')}" / "snapshots"
    answers = {}
    for revision, commit in ((None, SECOND), ("main", SECOND), (FIRST, FIRST)):
        options = LoadOptions(revision=revision, cache_dir=cache, local_files_only=True)
        answers[commit] = load(MODEL, options).module(*inputs.values())
        assert torch.equal(answers[commit], load(directory / commit).module(*inputs.values()))
    assert relative(answers[FIRST], answers[SECOND]) > 1e-2


def test_a_bundle_bears_the_hub_id(cache, tmp_path, capsys, monkeypatch):
    cached = ("--cache-dir", cache, "--local-files-only")
    assert export(MODEL, "-o", tmp_path / "b", "--revision", FIRST, *cached) == 0
    bundle = load_bundle(tmp_path / "b")
    assert (bundle.manifest.source.name, bundle.manifest.source.pretrained) == (MODEL, True)
    assert weights_sha256(reference_of(bundle).module) == bundle.manifest.source.weights_sha256
    capsys.readouterr()
    assert export(MODEL, "-o", tmp_path / "c", "--dry-run", "--json", *cached) == 0
    assert json.loads(capsys.readouterr().out)["pretrained"] is True
    # without the record of its export it is looked for in the user's own cache, and has to have the same weights
    record_path(bundle.path).unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    with pytest.raises(UsageError, match="expected the weights of the bundle"):
        reference_of(bundle)


def test_what_is_not_in_the_cache_is_unavailable(cache, tmp_path, capsys):
    cached = ("--cache-dir", cache, "--local-files-only")
    assert export("acme/other", "-o", tmp_path / "b", *cached) == 4
    assert "not in the local cache" in capsys.readouterr().err
    assert export(MODEL, "-o", tmp_path / "b", "--revision", "v2", *cached) == 4
    assert "v2" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_an_unreachable_hub_is_unavailable(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert export("acme/other", "-o", tmp_path / "b", "--cache-dir", tmp_path / "empty") == 4
    assert "reachable" in capsys.readouterr().err


def test_without_huggingface_hub_a_hub_id_is_unavailable(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert export(MODEL, "-o", tmp_path / "b", "--cache-dir", cache) == 4
    assert "pip install 'perceiver-deploy[hub]'" in capsys.readouterr().err
    with pytest.raises(UnavailableError, match="huggingface_hub"):
        perceiver_deploy.plan(MODEL, tmp_path / "b")


def test_a_repository_without_weights_is_a_bad_checkpoint(cache):
    snapshot = cache / f"models--{MODEL.replace('/', '--')}" / "snapshots" / FIRST
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected one of model\.safetensors"):
        load(MODEL, LoadOptions(revision=FIRST, cache_dir=cache, local_files_only=True))


@pytest.mark.parametrize("source", ["fashion-perceiver", "{directory}"])
def test_hub_options_are_for_hub_ids(cache, tmp_path, source, capsys):
    directory = shutil.copytree(cache / f"models--{MODEL.replace('/', '--')}" / "snapshots" / FIRST, tmp_path / "d")
    assert export(source.format(directory=directory), "-o", tmp_path / "b", "--revision", "main") == 2
    assert "--revision" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["./checkpoint", "../checkpoint", "a/b/c", "checkpoint"])
def test_other_sources_are_no_hub_ids(source, tmp_path, capsys):
    assert export(source, "-o", tmp_path / "b") == 2
    assert source in capsys.readouterr().err
