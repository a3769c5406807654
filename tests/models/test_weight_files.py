"""Files of weights: wrapped, prefixed, sharded, of another kind, or with values that are no weights."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models.checkpoint_edits import LANGUAGE, change, made
from safetensors.torch import load_file, save_file

from perceiver_deploy.checkpoints import load
from perceiver_runtime.errors import CheckpointError, UnavailableError

MLP = "perceiver.encoder.self_attends.0.mlp.dense1.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(LANGUAGE, tmp_path_factory.mktemp("original"))


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    for path in original.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def pickled(directory: Path, wrap: Any) -> Path:
    """The weights as pytorch_model.bin, in what a training loop saves."""
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save(wrap(tensors), directory / "pytorch_model.bin")
    return directory


def same(directory: Path, original: Path) -> bool:
    ours, theirs = (load(place).module.state_dict() for place in (directory, original))
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


ADAM = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4, 4)}}, "param_groups": []}
WRAPPERS = {
    "model_state_dict": lambda t: {"epoch": 3, "model_state_dict": t, "loss": torch.tensor(0.1)},
    "model beside an optimizer": lambda t: {"model": t, "optimizer": ADAM, "best": 0.5},
    "nested": lambda t: {"checkpoint": {"ema": t, "step": 3}},
    "named optimizer states": lambda t: {"module": t, "optim": {"state": {"a.weight": {"exp_avg": torch.ones(2, 2)}}}},
    "DistributedDataParallel": lambda t: {f"module.{n}": v for n, v in t.items()},
    "compiled, Lightning": lambda t: {"state_dict": {f"model._orig_mod.{n}": v for n, v in t.items()}},
}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_the_one_state_dict_of_a_training_loop_is_read(wrap: str, checkpoint: Path, original: Path) -> None:
    assert same(pickled(checkpoint, WRAPPERS[wrap]), original)


def test_shards_with_a_prefix_are_read(checkpoint: Path, original: Path) -> None:
    tensors = {f"module.{n}": t for n, t in load_file(checkpoint / "model.safetensors").items()}
    (checkpoint / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, kept in shards.items():
        save_file({n: tensors[n] for n in kept}, checkpoint / shard)
    index = {"weight_map": {n: shard for shard, kept in shards.items() for n in kept}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(checkpoint, original)


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda t: {"model": t, "model_ema": t}, ("several: model, model_ema",)),
        (lambda t: {**t, "epoch": 3}, ("epoch (int)",)),
        (lambda t: {"epoch": 3, "loss": 0.1}, ("epoch (int)", "loss (float)")),
        (lambda t: list(t.values()), ("a list",)),
        (lambda t: t[MLP], ("a Tensor",)),
        (lambda t: {}, ("no entries",)),
        (lambda t: {"model": t, "args": SimpleNamespace(lr=0.1)}, ("types.SimpleNamespace", "run code", "safetensors")),
    ],
)
def test_what_holds_no_single_state_dict_is_refused_by_its_entries(checkpoint: Path, wrap: Any, words: Any) -> None:
    refused(pickled(checkpoint, wrap), "pytorch_model.bin", *words)


def refused(directory: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load(directory)
    assert all(word in str(error.value) for word in words), error.value


def archive(**files: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return target.getvalue()


def bomb() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("archive/data.pkl", bytes(10**7))
    return target.getvalue()


FOREIGN = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 8\n", ("Git LFS", "git lfs pull")),
    "page": (b"\n<!DOCTYPE HTML><html>not found</html>", ("web page",)),
    "empty": (b"", ("an empty file",)),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(64), ("GGUF",)),
    "onnx": (b"\x08\x0a\x12\x07pytorch" + bytes(64), ("ONNX",)),
    "flax": (b"\x81\xa6params\x82\xa5layer\xc0\xa4more\xc0", ("MessagePack", "save_pretrained")),
    "h5": (b"\x89HDF\r\n\x1a\n" + bytes(64), ("HDF5",)),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), ("compressed",)),
    "text": (b"hello, these are no weights at all\n", ("a text",)),
    "json": (b'{"error": "gone"}', ("JSON",)),
    "noise": (bytes(range(200, 256)) * 4, ("again",)),
    "zip": (archive(**{"weights/model.txt": "x"}), ("ZIP archive of weights/model.txt",)),
    "pickle": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.", ("a pickle",)),
}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_another_kind_is_named_for_what_it_is(checkpoint: Path, name: str, kind: str) -> None:
    content, words = FOREIGN[kind]
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(content)
    common = () if name == "model.safetensors" and kind in ("zip", "pickle") else words
    refused(checkpoint, name, *common)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_pytorch_file_is_refused(checkpoint: Path, share: float, zipped: bool) -> None:
    tensors, path = load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin"
    (checkpoint / "model.safetensors").unlink()
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(checkpoint, "pytorch_model.bin")


def test_a_damaged_directory_of_an_archive_is_no_defect(checkpoint: Path) -> None:
    path = pickled(checkpoint, lambda tensors: tensors) / "pytorch_model.bin"
    content = path.read_bytes()
    start = content.rindex(b"PK\x01\x02")
    for offset, value in ((0, b"\xff"), (6, b"\x9a\x9a"), (46, b"\xb0\xb0"), (28, b"\xff\xff")):
        path.write_bytes(content[: start + offset] + value + content[start + offset + len(value) :])
        with suppress(CheckpointError):  # torch overlooks some of this damage
            load(checkpoint)


def test_an_archive_that_unpacks_to_more_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(bomb())
    refused(checkpoint, "without compression")


def test_a_safetensors_file_under_a_pytorch_name_is_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    refused(checkpoint, "this is a safetensors file; name it model.safetensors")


def test_what_lies_there_instead_is_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model.fp16.safetensors")
    (checkpoint / "tf_model.h5").touch()
    refused(checkpoint, "it holds model.fp16.safetensors, tf_model.h5", "rename it")


@pytest.mark.parametrize("other", [False, True])
def test_a_link_that_leads_nowhere_is_named_and_not_passed_over(checkpoint: Path, other: bool) -> None:
    """As a copy of the hub's cache without its blobs."""
    weights = checkpoint / "model.safetensors"
    if other:
        torch.save(load_file(weights), checkpoint / "pytorch_model.bin")
    weights.unlink()
    weights.symlink_to("../../blobs/absent")
    refused(checkpoint, "model.safetensors: ", "a link to '../../blobs/absent', where no file is", "cp -L")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_a_file_that_may_not_be_read_is_neither_damaged_nor_absent(
    checkpoint: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "pytorch_model.bin":
        torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / name)
        (checkpoint / "model.safetensors").unlink()
    forbid(monkeypatch, checkpoint / name)
    with pytest.raises(UnavailableError, match=rf"{name}: Permission denied; .*change its permissions") as error:
        load(checkpoint)
    assert error.value.exit_code == 4


def forbid(monkeypatch: pytest.MonkeyPatch, forbidden: Path) -> None:
    """A file without permission, also for the administrator."""
    original = Path.open

    def opened(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)


def test_a_directory_in_place_of_weights_is_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors").mkdir()
    refused(checkpoint, "expected a file of weights, got a directory")


def test_a_directory_without_a_config_is_told_what_it_lacks(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    refused(checkpoint, "config.json", "beside its weights", "model.safetensors")


INDICES = {
    "itself": ({MLP: "model.safetensors.index.json"}, ("the index 'model.safetensors.index.json'",)),
    "a missing shard": ({MLP: "absent.safetensors"}, ("absent.safetensors", "not beside it")),
    "no map": ([1], ("weight_map",)),
    "an empty map": ({}, ("found none",)),
    "a number": ({MLP: 3}, ("weight_map",)),
}


@pytest.mark.parametrize("case", INDICES)
def test_a_shard_index_that_names_no_shards_is_refused(checkpoint: Path, case: str) -> None:
    weight_map, words = INDICES[case]
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    refused(checkpoint, "model.safetensors.index.json", *words)


def test_a_tensor_in_two_shards_is_refused(checkpoint: Path) -> None:
    for shard in ("one.safetensors", "two.safetensors"):
        (checkpoint / shard).write_bytes((checkpoint / "model.safetensors").read_bytes())
    (checkpoint / "model.safetensors").unlink()
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(checkpoint, "each tensor in one shard", "one.safetensors and in two.safetensors")


def single(value: float) -> Any:
    """One value of a weight replaced, in FP64."""

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[MLP] = tensors[MLP].double()
        tensors[MLP][1, 2] = value

    return edit


VALUES = {
    "NaN": (single(float("nan")), ("1 of 1,024", "NaN")),
    "infinity": (single(float("-inf")), ("1 of 1,024", "infinite")),
    "beyond float32": (single(1e39), ("1 of 1,024", "beyond the range of float32")),
    "int8": (lambda t: t.update({MLP: t[MLP].to(torch.int8)}), ("int8",)),
    "int64": (lambda t: t.update({MLP: t[MLP].long()}), ("int64",)),
    "bool": (lambda t: t.update({MLP: t[MLP] > 0}), ("bool",)),
    "complex": (lambda t: t.update({MLP: t[MLP].to(torch.complex64)}), ("complex64",)),
    "float8": (lambda t: t.update({MLP: t[MLP].to(torch.float8_e4m3fn)}), ("float8_e4m3fn",)),
    "transposed": (lambda t: t.update({MLP: t[MLP][:, :31]}), ("expected [32, 32], got [32, 31]",)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_that_are_no_weights_are_refused_by_tensor_and_file(checkpoint: Path, kind: str) -> None:
    edit, words = VALUES[kind]
    change(checkpoint, edit)
    refused(checkpoint, "model.safetensors", MLP, *words)


def test_forms_that_safetensors_lacks_are_refused(checkpoint: Path) -> None:
    pickled(checkpoint, lambda t: {**t, MLP: t[MLP].to_sparse()})
    refused(checkpoint, "pytorch_model.bin", MLP, "sparse")


def test_a_tensor_without_storage_of_its_size_is_refused_by_its_shape(checkpoint: Path) -> None:
    pickled(checkpoint, lambda t: {**t, MLP: torch.zeros(1).expand(10**12)})
    refused(checkpoint, MLP, "[1000000000000]")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_types_are_read_as_fp32(checkpoint: Path, dtype: torch.dtype) -> None:
    change(checkpoint, lambda t: t.update({name: tensor.to(dtype) for name, tensor in t.items()}))
    assert {p.dtype for p in load(checkpoint).module.parameters()} == {torch.float32}
