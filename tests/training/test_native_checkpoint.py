"""The native checkpoint: a round trip, and every way in which it can be wrong."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from perceiver_deploy.checkpoints.native import CheckpointRecord, load_checkpoint, read_config, save_checkpoint
from perceiver_runtime.errors import CheckpointError

FAMILY = "patch-classifier"


@pytest.fixture
def saved(tmp_path, randomised, small_config):
    """A checkpoint directory with random weights."""
    record = CheckpointRecord(FAMILY, small_config, "fashion-mnist", {"seed": 3, "accuracy": {"test": 0.5}})
    save_checkpoint(tmp_path / "model", record, randomised)
    return tmp_path / "model"


def edit(directory, change):
    """Rewrite `config.json` by a function of its content."""
    path = directory / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(directory, change):
    """Rewrite `model.safetensors` by a function of its tensors."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def refused(directory, *words):
    """Loading fails with exit code 3 and a message that holds all the words."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(directory)
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert all(word in message for word in words), message


def test_round_trip_keeps_config_weights_and_outputs(saved, randomised, small_config):
    loaded = load_checkpoint(saved)
    assert (loaded.family, loaded.config, loaded.dataset) == (FAMILY, small_config, "fashion-mnist")
    pixels = torch.randn(3, 1, 28, 28)
    assert torch.equal(loaded.module(pixels), randomised(pixels))
    assert not loaded.module.training


def test_config_is_read_without_the_weights(saved, small_config):
    (saved / "model.safetensors").unlink()
    record = read_config(saved)
    assert record.config == small_config
    assert record.provenance == {"seed": 3, "accuracy": {"test": 0.5}}


def test_saving_again_gives_the_same_bytes_and_leaves_nothing_else(saved, randomised):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    save_checkpoint(saved, read_config(saved), randomised)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert set(before) == {"config.json", "model.safetensors"}


def test_swapped_weights_do_not_pass_as_the_same_model(saved, randomised):
    def swap(tensors):
        key, value = "perceiver.encoder.attention.key.bias", "perceiver.encoder.attention.value.bias"
        tensors[key], tensors[value] = tensors[value], tensors[key]

    edit_weights(saved, swap)
    pixels = torch.randn(3, 1, 28, 28)
    assert not torch.allclose(load_checkpoint(saved).module(pixels), randomised(pixels), atol=1e-3)


def test_a_tensor_left_over_is_named(saved):
    edit_weights(saved, lambda tensors: tensors.update({"head.extra": torch.zeros(1)}))
    refused(saved, "head.extra", "model.safetensors")


def test_a_missing_tensor_is_named(saved):
    edit_weights(saved, lambda tensors: tensors.pop("query"))
    refused(saved, "query", "lacks")


def test_a_wrong_shape_is_named_with_both_shapes(saved):
    edit_weights(saved, lambda tensors: tensors.update({"head.bias": torch.zeros(11)}))
    refused(saved, "head.bias", "[10]", "[11]")


def test_all_that_is_wrong_is_said_at_once(saved):
    def change(tensors):
        tensors.pop("query")
        tensors.update({"one": torch.zeros(1), "head.bias": torch.zeros(2)})

    edit_weights(saved, change)
    refused(saved, "query", "one", "head.bias")


def test_weights_of_other_sizes_than_the_config_says(saved):
    edit(saved, lambda content: content["config"]["perceiver"].update(latents=3))
    refused(saved, "perceiver.latents", "[3, 96]", "[2, 96]")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_absent_file_is_named(saved, name):
    (saved / name).unlink()
    refused(saved, name)


def test_an_absent_directory(tmp_path):
    refused(tmp_path / "nowhere", "nowhere")


@pytest.mark.parametrize("cut", [0, 4, 200, -1])
def test_truncated_weights(saved, cut):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    refused(saved, "safetensors")


def test_a_pickle_is_not_executed(saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    (saved / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    refused(saved, "safetensors")
    assert not (tmp_path / "executed").exists()


def test_a_pytorch_file_beside_it_is_not_read(saved):
    tensors = load_file(saved / "model.safetensors")
    torch.save(tensors, saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    refused(saved, "model.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", '"patch-classifier"'])
def test_config_that_is_no_json_object(saved, text):
    (saved / "config.json").write_text(text)
    refused(saved, "config.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(family="resnet"), ("resnet", FAMILY)),
        (lambda c: c.pop("family"), ("missing field family",)),
        (lambda c: c.update(colour="red"), ("unknown field colour",)),
        (lambda c: c.update(dataset=7), ("dataset", "7")),
        (lambda c: c["config"].pop("patch"), ("missing field patch",)),
        (lambda c: c["config"].update(dropout=0.1), ("unknown field dropout",)),
        (lambda c: c["config"].update(patch="4"), ("config.patch", "int")),
        (lambda c: c["config"]["perceiver"]["encoder"].update(heads=True), ("encoder.heads", "True")),
        (lambda c: c["config"]["perceiver"]["encoder"].update(heads=5), ("multiples of heads 5",)),
        (lambda c: c["config"]["perceiver"]["encoder"].update(heads=0), ("config.perceiver.encoder.heads", "got 0")),
        (lambda c: c["config"].update(stride=0), ("config.stride", "got 0")),
        (lambda c: c["config"].update(patch=-4), ("config.patch", "got -4")),
    ],
)
def test_config_that_does_not_describe_a_model(saved, change, words):
    edit(saved, change)
    refused(saved, "config.json", *words)
