"""What an importer refuses, and that the refusal names it."""

from __future__ import annotations

import json
import pickle
import sys

import pytest
import torch
from models.oracle import REDUCED, Case, relative, saved, text
from safetensors.torch import load_file, save_file

from perceiver_deploy.checkpoints import LoadOptions, load
from perceiver_runtime.errors import CheckpointError, UnavailableError

LANGUAGE = Case("PerceiverForMaskedLM", {**REDUCED, "num_cross_attention_heads": 2}, text(2, 20, 50))
QUERY = "perceiver.encoder.cross_attention.attention.self.query.weight"


@pytest.fixture
def checkpoint(tmp_path):
    return saved(LANGUAGE.oracle(), tmp_path / "checkpoint")


def change(directory, edit):
    tensors = load_file(directory / "model.safetensors")
    edit(tensors)
    save_file(tensors, directory / "model.safetensors")


def configure(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_every_misfit_is_listed_at_once(checkpoint):
    def edit(tensors):
        tensors["perceiver.extra.weight"] = torch.zeros(3)
        del tensors["embedding_decoder.bias"]
        tensors[QUERY] = torch.zeros(7, 5)

    change(checkpoint, edit)
    with pytest.raises(CheckpointError) as error:
        load(checkpoint)
    message = str(error.value)
    assert "perceiver.extra.weight" in message
    assert "head.bias" in message
    assert "perceiver.encoder.attention.query.weight: expected [24, 32], got [7, 5]" in message
    assert str(checkpoint) in message


def test_a_layer_too_many_is_left_over(checkpoint):
    configure(checkpoint, num_self_attends_per_block=1)
    with pytest.raises(CheckpointError, match=r"16 tensors .*self_attends\.1"):
        load(checkpoint)


def test_a_layer_too_few_is_missing(checkpoint):
    configure(checkpoint, num_self_attends_per_block=3)
    with pytest.raises(CheckpointError, match=r"16 tensors that the model needs .*perceiver\.block\.2"):
        load(checkpoint)


class Bomb:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("archive", [True, False], ids=["zip archive", "bare pickle"])
def test_a_pickle_that_would_run_code_is_refused(checkpoint, archive, capsys):
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    path = checkpoint / "pytorch_model.bin"
    torch.save({**tensors, "bomb": Bomb()}, path) if archive else path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="safetensors"):
        load(checkpoint)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["one .bin", "sharded safetensors", "sharded .bin", "state_dict inside"])
def test_every_layout_of_weights_gives_the_same_model(layout, tmp_path):
    oracle, inputs = LANGUAGE.oracle(), LANGUAGE.inputs()
    size = "20KB" if layout.startswith("sharded") else "5GB"
    directory = saved(oracle, tmp_path, max_shard_size=size)
    if layout.startswith("sharded"):
        assert len(list(directory.glob("model-*.safetensors"))) > 2
    if layout == "sharded .bin":
        to_bins(directory)
    elif not layout.startswith("sharded"):
        tensors = load_file(directory / "model.safetensors")
        (directory / "model.safetensors").unlink()
        content = {"state_dict": tensors} if layout == "state_dict inside" else tensors
        torch.save(content, directory / "pytorch_model.bin")
    assert relative(load(directory).module(**inputs), oracle(**inputs).logits) < 2e-6


def to_bins(directory):
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    (directory / "model.safetensors.index.json").unlink()
    for path in directory.glob("*.safetensors"):
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()
    shards = {name: shard.replace(".safetensors", ".bin") for name, shard in index["weight_map"].items()}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))


def test_half_precision_weights_are_read_in_full(checkpoint):
    change(checkpoint, lambda tensors: tensors.update({n: t.half() for n, t in tensors.items()}))
    assert {p.dtype for p in load(checkpoint).module.parameters()} == {torch.float32}


def test_a_shard_outside_the_directory_is_refused(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint.parent / "model.safetensors")
    index = {"weight_map": {QUERY: "../model.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="beside the index"):
        load(checkpoint)


def test_a_tensor_promised_by_the_index_and_absent_is_named(checkpoint):
    index = {"weight_map": {"ghost": "shard.safetensors"}}
    (checkpoint / "model.safetensors").rename(checkpoint / "shard.safetensors")
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="ghost"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "safetensors"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "safetensors"),
        (b"not a checkpoint at all", "safetensors"),
    ],
)
def test_a_damaged_file_is_refused(checkpoint, content, message):
    (checkpoint / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["PerceiverModel"]}, "PerceiverForMaskedLM"),
        ({"architectures": None}, "architectures"),
        ({"hidden_act": "relu"}, "gelu"),
        ({"v_channels": 16}, "d_latents 32"),
        ({"cross_attention_shape_for_attention": "z"}, "'q' or 'kv', got 'z'"),
        ({"model_type": "bert"}, "Hugging Face"),
    ],
)
def test_a_config_that_is_not_ours_is_refused(checkpoint, changes, message):
    configure(checkpoint, **changes)
    with pytest.raises(CheckpointError, match=message):
        load(checkpoint)


def test_sources_that_do_not_exist(tmp_path):
    with pytest.raises(CheckpointError, match="hub id"):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path)


def cached(checkpoint, cache, commit="0" * 40):
    """The hub's cache as it looks after a download."""
    home = cache / "models--owner--name"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots").mkdir()
    checkpoint.rename(home / "snapshots" / commit)
    return cache


def test_a_hub_id_is_read_from_the_cache(checkpoint, tmp_path):
    cache = cached(checkpoint, tmp_path / "cache")
    loaded = load("owner/name", LoadOptions(cache_dir=cache, local_files_only=True))
    assert loaded.family == "masked-language-model"
    pinned = LoadOptions(cache_dir=cache, local_files_only=True, revision="0" * 40)
    assert load("owner/name", pinned).config == loaded.config


def test_a_hub_id_that_is_not_in_the_cache_is_unavailable(tmp_path):
    with pytest.raises(UnavailableError, match="owner/name"):
        load("owner/name", LoadOptions(cache_dir=tmp_path, local_files_only=True))


def test_a_hub_id_without_huggingface_hub_is_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UnavailableError, match=r"pip install 'perceiver-deploy\[hub\]'"):
        load("owner/name")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attn_residual": True}, "attn_residual"),
        ({"final_classifier_head": 0}, "final_classifier_head"),
        ({"input_axis": 3}, "3 sizes"),
        ({}, "max_freq"),
    ],
)
def test_lucidrains_arguments_that_we_do_not_have_are_refused(tmp_path, arguments, message):
    known = {"num_freq_bands": 2, "depth": 1, **({"max_freq": 4.0} if arguments else {})}
    record = {"library": "perceiver-pytorch", "class": "Perceiver", "sizes": [4, 4], "arguments": known | arguments}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_cross_attention_layers": 2}, "num_cross_attention_layers 1"),
        ({"num_self_attention_blocks": 2, "first_self_attention_block_shared": False}, "shared"),
    ],
)
def test_krasserm_settings_that_we_do_not_have_are_refused(tmp_path, changes, message):
    from models.test_third_party_parity import krasserm_text

    directory = saved(krasserm_text(True), tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config["model_config"]["encoder"].update(changes)
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load(directory)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, r'"version" of perceiver-pytorch .*0\.7\.1, 0\.7\.3 and later are read'),
        ("0.7.2", r"0\.7\.3 and later are read, got 0\.7\.2; export the module itself"),
        ("0.6.1", r"got 0\.6\.1"),
        ("0.8.1", r"got 0\.8\.1, and the tensors have the names of releases before 0\.8"),
        ("latest", r'a release of perceiver-pytorch, such as "0\.7\.5" or null, got \'latest\''),
    ],
)
def test_releases_of_perceiver_pytorch_that_are_not_read_are_refused(tmp_path, version, message):
    from models.test_third_party_parity import IMAGE, lucidrains, rename_as_in_0_7
    from perceiver_pytorch import Perceiver

    directory = lucidrains("Perceiver", tmp_path, Perceiver(**IMAGE), IMAGE, sizes=[8, 12], version=version)
    rename_as_in_0_7(directory)
    with pytest.raises(CheckpointError, match=message):
        load(directory)


def test_the_newer_names_of_perceiver_pytorch_contradict_an_old_version(tmp_path):
    from models.test_third_party_parity import IMAGE, lucidrains
    from perceiver_pytorch import Perceiver

    directory = lucidrains("Perceiver", tmp_path, Perceiver(**IMAGE), IMAGE, sizes=[8, 12], version="0.7.5")
    with pytest.raises(CheckpointError, match=r"0\.7\.5, and the tensors have the names of releases 0\.8 and later"):
        load(directory)


def test_a_perceiver_model_is_exported_as_a_module(checkpoint):
    configure(checkpoint, architectures=["PerceiverModel"])
    with pytest.raises(CheckpointError, match=r"\['PerceiverModel'\].*FILE\.py:FUNCTION.*preprocessor and decoder"):
        load(checkpoint)
