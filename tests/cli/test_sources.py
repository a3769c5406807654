"""What may be named as a source, what is refused for what it is, and how a bundle's source is found again."""

from __future__ import annotations

import errno
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli.conftest import Run
from models.checkpoint_edits import FOURIER, LANGUAGE, made
from models.oracle import relative

import perceiver_deploy
from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.native import CheckpointRecord, save_checkpoint
from perceiver_deploy.cli.main import main
from perceiver_deploy.sources.origin import find
from perceiver_deploy.sources.reference import reference_of
from perceiver_deploy.sources.source import resolve
from perceiver_deploy.sources.source_record import record_path
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import CheckpointError, UnavailableError, UsageError
from perceiver_runtime.escapes import command_line

PRESET = "vision-perceiver-conv"


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(LANGUAGE, tmp_path_factory.mktemp("models") / "tickets")


@pytest.fixture(scope="module")
def exported(tickets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("bundles") / "bundle"
    perceiver_deploy.export(tickets, bundle)
    return bundle


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([*map(str, arguments)])
    code = exit_.value.code
    assert isinstance(code, int)
    return code


def test_a_checkpoint_directory_wins_over_a_zoo_name(
    tickets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / PRESET).symlink_to(tickets)
    assert run("export", PRESET, "-o", "b", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["family"] == "sequence-classifier"
    assert "the directory is read, not the zoo's model" in caplog.text


@pytest.mark.parametrize("content", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_half_a_checkpoint_of_a_zoo_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / PRESET).mkdir()
    (tmp_path / PRESET / content).write_text("{}")
    with pytest.raises(CheckpointError, match=rf"{PRESET}/config\.json"):
        resolve(PRESET)


def test_an_output_directory_of_a_zoo_name_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fashion-perceiver").mkdir()
    assert find("fashion-perceiver").entry is not None
    with pytest.raises(CheckpointError, match=r"config\.json"):
        resolve("./fashion-perceiver")


def test_random_weights_are_announced_on_stderr(perceiver_export: Run, tmp_path: Path) -> None:
    shown = perceiver_export("export", "perceiver-pytorch-text", "-o", tmp_path / "b", "--dry-run", "-q")
    assert shown.returncode == 0
    assert "perceiver-pytorch-text: random weights" in shown.stderr
    assert "random weights" in shown.stdout


WRONG: dict[str, tuple[Any, str]] = {
    "module": (torch.nn.Linear(2, 2), r"expected an example of what Linear.forward takes"),
    "None": (None, "NoneType"),
    "number": (7, "int"),
    "bytes": (b"fashion-perceiver", "bytes"),
    "empty": ("", "got ''"),
    "blank": (" ", "got ' '"),
    "NUL": ("a\0b", "got 'a"),
    "long": ("a" * 5000, "source: expected a model of the zoo"),
    "missing path": (Path("nowhere/at/all"), "there is no such directory"),
    "path of a zoo name": (Path("fashion-perceiver"), "there is no such directory"),
    "typing error": ("fashion-perciever", "did you mean fashion-perceiver"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_source_is_refused_for_what_it_is(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, words = WRONG[case]
    with pytest.raises(UsageError, match=words):
        perceiver_deploy.export(source, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_and_a_bundle_are_refused_with_what_to_give_instead(tickets: Path, exported: Path) -> None:
    with pytest.raises(UsageError, match=rf"the file .*give the directory .*'{tickets}'"):
        resolve(str(tickets / "model.safetensors"))
    with pytest.raises(UsageError, match=r"the file .*PyTorch checkpoint"):
        resolve(exported / "onnx" / "encoder.onnx")
    with pytest.raises(UsageError, match=r"the bundle .*give what it was made from"):
        resolve(exported)


def test_the_current_directory_has_its_name(tickets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tickets)
    assert [find(source).name for source in (".", Path(), f"{tickets}/", "../tickets/.")] == ["tickets"] * 4
    (tickets / "below").mkdir()
    monkeypatch.chdir(tickets / "below")
    assert find("..").name == "tickets"


def test_a_name_that_is_no_text_is_made_one(tickets: Path, tmp_path: Path) -> None:
    named = tmp_path / "caf\udce9"
    named.symlink_to(tickets)
    assert find(named).name == "caf?"


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("fashion-perceiver", {"revision": "main"}, r"revision \(--revision\): goes with a hub id"),
        ("fashion-perceiver", {"cache_dir": Path("c")}, r"cache_dir \(--cache-dir\): goes with a hub id"),
        ("fashion-perceiver", {"image_size": (28, 28)}, r"image_size \(--image-size\): .*holds the model's sizes"),
        (PRESET, {"image_size": (96, 96)}, r"image_size \(--image-size\): goes with a checkpoint"),
        ("{tickets}", {"local_files_only": True}, r"local_files_only \(--local-files-only\): goes with a hub id"),
        ("{tickets}", {"image_size": (96, 96)}, "PerceiverForSequenceClassification has no images"),
    ],
)
def test_an_option_that_the_source_has_no_use_for_is_named(
    tickets: Path, source: str, options: Any, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(source.format(tickets=tickets), LoadOptions(**options))


@pytest.mark.parametrize("size", ["48", "48x", "0x64", "-48x64", "48x64x3", "1e3x4", "9999999x1", "99999x1"])
def test_an_image_size_that_is_none_is_refused(tickets: Path, tmp_path: Path, size: str) -> None:
    assert run("export", tickets, "-o", tmp_path / "b", "--image-size", size) == 2


def test_a_bundle_of_another_image_size_equals_transformers_and_its_reference(tmp_path: Path) -> None:
    oracle = FOURIER.oracle()
    oracle.save_pretrained(tmp_path / "mine")
    bundle = tmp_path / "bundle"
    assert run("export", tmp_path / "mine", "-o", bundle, "--image-size", "20x24", "-q", "--json") == 0
    (feeds,) = [{"pixel_values": np.random.default_rng(0).standard_normal((2, 3, 20, 24), dtype=np.float32)}]
    pixels = torch.from_numpy(feeds["pixel_values"])
    with perceiver_deploy.open_session(bundle, threads=1) as session:
        got = torch.from_numpy(session.run(feeds)["logits"].copy())
    assert relative(got, oracle(pixel_values=pixels).logits) < 1e-4  # transformers' positions are FP32
    assert relative(reference_of(load_bundle(bundle)).module(pixels), got) < 1e-5


def test_the_source_is_found_where_it_was(exported: Path, tickets: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model = reference_of(load_bundle(exported))
    assert (model.name, model.pretrained) == ("tickets", True)
    record = json.loads(record_path(exported).read_text())
    assert record["source"] == str(tickets)
    assert str(tickets.parent) not in "".join(
        p.read_text() for p in (exported / "manifest.json", exported / "README.md")
    )


def test_without_its_record_the_source_is_looked_for_by_name_and_told_by_its_weights(
    exported: Path, tickets: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    bundle = load_bundle(exported)
    record = record_path(exported)
    kept = record.read_bytes()
    try:
        monkeypatch.chdir(tickets.parent)
        for broken in (b"{", b"[]", json.dumps({**json.loads(kept), "weights_sha256": "other"}).encode()):
            record.write_bytes(broken)
            assert reference_of(bundle).name == "tickets"
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=r"got none: .*--reference"):
            reference_of(bundle)
        made(FOURIER, tmp_path / "tickets")
        with pytest.raises(UsageError, match=r"tickets .*[0-9a-f]{12}.*--reference"):
            reference_of(bundle)
        assert reference_of(bundle, str(tickets)).name == "tickets"
    finally:
        record.write_bytes(kept)


def test_a_data_set_that_is_none_is_refused(tmp_path: Path) -> None:
    model = resolve("fashion-perceiver")
    save_checkpoint(tmp_path / "c", CheckpointRecord(model.family.name, model.config, "fashion"), model.module)
    with pytest.raises(CheckpointError, match=r"config\.json: dataset: expected one of fashion-mnist"):
        resolve(tmp_path / "c")


@pytest.mark.parametrize("dataset", ["languages", "emoji"])
def test_the_data_set_of_another_model_is_refused(tmp_path: Path, dataset: str) -> None:
    model = resolve("fashion-perceiver")
    save_checkpoint(tmp_path / "c", CheckpointRecord(model.family.name, model.config, dataset), model.module)
    with pytest.raises(CheckpointError, match="dataset: expected data for pixel_values"):
        resolve(tmp_path / "c")


def test_commands_that_are_printed_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = command_line("perceiver-export", "bisect", Path("my bundle's; rm"))
    assert shlex.split(printed) == ["perceiver-export", "bisect", str(tmp_path.resolve() / "my bundle's; rm")]


def test_a_directory_that_may_not_be_looked_into_lacks_a_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(UnavailableError, match=r"Permission denied; .*change its permissions"):
        find(tmp_path)
