"""Every value of a config is checked before a model is built: refusals name file and field; nothing is allocated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models.checkpoint_edits import CONV, FLOW, FOURIER, LANGUAGE, LEARNED, VIDEO, configure, made
from models.oracle import saved
from models.test_third_party_parity import krasserm_image, krasserm_text, lucidrains

from perceiver_deploy.checkpoints import LoadOptions, load
from perceiver_deploy.zoo import zoo
from perceiver_runtime.errors import CheckpointError, UsageError

CASES = {"language": LANGUAGE, "fourier": FOURIER, "conv": CONV, "learned": LEARNED, "flow": FLOW, "video": VIDEO}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: made(case, tmp_path_factory.mktemp(name)) for name, case in CASES.items()}


@pytest.fixture
def copy(originals: dict[str, Path], tmp_path: Path) -> Any:
    def of(name: str) -> Path:
        for path in originals[name].iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        return tmp_path

    return of


def refused(directory: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load(directory)
    assert all(word in str(error.value) for word in ("config.json", *words)), error.value


COUNTS = ("num_latents", "d_latents", "d_model", "num_blocks", "num_self_attends_per_block", "num_self_attention_heads")
STRANGE = {
    "zero": 0,
    "negative": -3,
    "text": "8",
    "float": 8.0,
    "bool": True,
    "list": [8],
    "null": None,
    "huge": 10**30,
}


@pytest.mark.parametrize("value", STRANGE)
@pytest.mark.parametrize("field", [*COUNTS, "num_cross_attention_heads", "vocab_size", "max_position_embeddings"])
def test_numbers_that_no_model_has_are_refused(copy: Any, field: str, value: str) -> None:
    directory = copy("language")
    configure(directory, **{field: STRANGE[value]})
    refused(directory, f"{field}: expected an integer from 1 to")


FIELDS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("language", {"d_latents": 30}, ("d_latents", "multiple of num_self_attention_heads 4")),
    ("language", {"num_cross_attention_heads": 5}, ("multiple of num_cross_attention_heads 5",)),
    ("language", {"qk_channels": 0}, ("qk_channels", "or null")),
    ("language", {"qk_channels": "32"}, ("qk_channels", "or null")),
    ("language", {"hidden_act": ["gelu"]}, ("hidden_act: expected 'gelu'",)),
    ("language", {"cross_attention_shape_for_attention": {}}, ("expected 'q' or 'kv'",)),
    ("language", {"use_query_residual": 1}, ("use_query_residual: expected True or False, got 1",)),
    ("language", {"self_attention_widening_factor": 0}, ("self_attention_widening_factor",)),
    ("language", {"architectures": "PerceiverForMaskedLM"}, ("architectures", "'PerceiverForMaskedLM'")),
    ("language", {"architectures": [["PerceiverForMaskedLM"]]}, ("architectures",)),
    ("language", {"architectures": 3}, ("architectures",)),
    ("language", {"id2label": {"angry": 0, "calm": 1}}, ("id2label", "'angry'", "wrong way round")),
    ("language", {"id2label": {"0": "a", "2": "b"}}, ("id2label", "from 0 to 1 once, got 0, 2")),
    ("language", {"id2label": {"0": "a", "00": "b"}}, ("id2label", "got 0, 0")),
    ("language", {"id2label": {"-1": "a", "0": "b"}}, ("id2label", "'-1'")),
    ("language", {"id2label": ["a", "b"]}, ("id2label", "an object or null")),
    ("language", {"id2label": {"0": None}}, ("id2label", "a name for class 0")),
    ("language", {"id2label": {"0": {"name": "a"}}}, ("id2label", "a name for class 0")),
    ("language", {"id2label": None, "num_labels": -2}, ("num_labels",)),
    ("learned", {"id2label": {"0": "a", "1": "b"}, "num_labels": 7}, ("2 names and num_labels 7",)),
    ("flow", {"train_size": [12]}, ("train_size",)),
    ("flow", {"train_size": [12, 0]}, ("train_size",)),
    ("flow", {"train_size": "12x18"}, ("train_size",)),
    ("flow", {"train_size": [16384, 16384]}, ("train_size", "16,777,216 points")),
    ("learned", {"image_size": 0}, ("image_size",)),
    ("learned", {"image_size": [12, 12, 3]}, ("image_size",)),
    ("video", {"output_shape": [16, 16]}, ("output_shape",)),
    ("video", {"output_shape": [1, 2, 15, 16]}, ("output_shape's height 15", "the patch 4")),
    ("video", {"output_shape": [2, 2, 16, 16]}, ("output_shape", "[1, frames, height, width]")),
    ("video", {"samples_per_patch": 24}, ("samples_per_patch 24",)),
    ("video", {"num_frames": 0}, ("num_frames",)),
    ("conv", {"image_size": 4}, ("at least 5 x 5",)),
]


@pytest.mark.parametrize(("name", "changes", "words"), FIELDS)
def test_values_that_a_class_can_not_have_are_refused(copy: Any, name: str, changes: Any, words: Any) -> None:
    directory = copy(name)
    configure(directory, **changes)
    if name == "conv":
        with pytest.raises(CheckpointError, match="at least 5 x 5"):
            load(directory)
    else:
        refused(directory, *words)


def test_sizes_that_the_checkpoint_does_not_have_allocate_nothing(copy: Any) -> None:
    directory = copy("language")
    configure(directory, d_latents=2**20, num_latents=2**20, vocab_size=2**30)
    refused_by_shape = r"expected \[1048576, 1048576\], got \[8, 32\]"
    with pytest.raises(CheckpointError, match=refused_by_shape):
        load(directory)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": "\\ud800"}', "", "\x00", '{"a": ' + "9" * 5000 + "}"],
)
def test_what_is_no_json_is_refused(copy: Any, text: str) -> None:
    directory = copy("language")
    (directory / "config.json").write_text(text)
    refused(directory, "expected a JSON file")


def test_names_of_classes_are_in_order_of_their_numbers(copy: Any) -> None:
    directory = copy("language")
    names = {str(i): f"name {i}" for i in (6, 1, 0, 5, 2, 4, 3)}
    configure(directory, id2label=names)
    assert load(directory).labels == tuple(f"name {i}" for i in range(7))


def krasserm(directory: Path, part: str, **changes: Any) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    (config["model_config"][part] if part else config["model_config"]).update(changes)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("build", "part", "changes", "words"),
    [
        (krasserm_image, "encoder", {"image_shape": [10, 14]}, "encoder: image_shape: expected a list of 3"),
        (krasserm_image, "encoder", {"num_frequency_bands": 0}, "encoder: num_frequency_bands"),
        (krasserm_image, "encoder", {"num_self_attention_heads": "4"}, "encoder: num_self_attention_heads"),
        (krasserm_image, "decoder", {"num_classes": -5}, "decoder: num_classes"),
        (krasserm_image, "", {"num_latents": 2.5}, "model_config: num_latents"),
        (krasserm_image, "", {"encoder": 3}, "model_config: encoder: expected an object"),
        (krasserm_image, "encoder", {"num_self_attention_heads": 7}, "multiples of heads 7"),
        (lambda: krasserm_text(True), "encoder", {"vocab_size": 0}, "encoder: vocab_size"),
        (
            lambda: krasserm_text(True),
            "decoder",
            {"cross_attention_residual": "no"},
            "decoder: cross_attention_residual",
        ),
    ],
)
def test_values_of_krasserm_configs_are_refused(
    tmp_path: Path, build: Any, part: str, changes: Any, words: str
) -> None:
    directory = saved(build(), tmp_path)
    krasserm(directory, part, **changes)
    refused(directory, words)


def test_more_readings_than_blocks_are_refused(tmp_path: Path) -> None:
    directory = saved(krasserm_image(), tmp_path)
    krasserm(directory, "encoder", num_cross_attention_layers=3)
    refused(directory, "num_cross_attention_layers of at most num_self_attention_blocks 2, got 3")


@pytest.mark.parametrize("names", [{str(i): i for i in range(5)}, {"0": "cat"}, {}])
def test_class_names_of_krasserm_configs_are_read(tmp_path: Path, names: Any) -> None:
    """The package's own MNIST model names its classes by numbers."""
    directory = saved(krasserm_image(), tmp_path)
    configure(directory, id2label=names)
    if len(names) in (0, 5):
        assert load(directory).labels == tuple(map(str, names.values()))
    else:
        refused(directory, "id2label: expected a name for each of the 5 classes")


@pytest.mark.parametrize("kind", ["perceiver-ar-causal-language-model", "perceiver-ar-symbolic-audio-model"])
def test_perceiver_ar_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "model_config": {}}))
    refused(tmp_path, "Perceiver AR is not supported", kind, "perceiver-io-text-classifier")


def test_an_unknown_model_type_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
    refused(tmp_path, "model_type 'vit'", "ViTModel", "krasserm/perceiver-io")


ARGUMENTS = {"num_freq_bands": 2, "depth": 1, "max_freq": 4.0, "num_latents": 4, "latent_dim": 8, "num_classes": 3}


@pytest.mark.parametrize(
    ("changes", "record", "words"),
    [
        ({"depth": 0}, {}, "depth"),
        ({"depth": 10**9}, {}, "depth"),
        ({"max_freq": float("inf")}, {}, "JSON"),
        ({"max_freq": "4"}, {}, "max_freq"),
        ({"cross_head": 2}, {}, "'cross_head'"),
        ({}, {"sizes": [4, -4]}, "sizes"),
        ({}, {"sizes": 4}, "sizes"),
        ({}, {"class": ["Perceiver"]}, "'Perceiver' or 'PerceiverIO' or 'PerceiverLM'"),
        ({}, {"arguments": [1]}, "arguments"),
    ],
)
def test_values_of_lucidrains_configs_are_refused(tmp_path: Path, changes: Any, record: Any, words: str) -> None:
    whole = {"library": "perceiver-pytorch", "class": "Perceiver", "sizes": [4, 4], "arguments": ARGUMENTS | changes}
    (tmp_path / "config.json").write_text(json.dumps(whole | record))
    refused(tmp_path, words)


def test_arguments_without_effect_are_allowed(tmp_path: Path) -> None:
    from perceiver_pytorch import Perceiver

    arguments = {**ARGUMENTS, "attn_dropout": 0.1, "ff_dropout": 0.2}
    lucidrains("Perceiver", tmp_path, Perceiver(**arguments), arguments, sizes=[4, 4])
    assert load(tmp_path).family == "classic-perceiver"


def size_of(directory: Path, options: LoadOptions = LoadOptions()) -> tuple[int, int]:  # noqa: B008 - frozen
    config = load(directory, options).config
    return config.height, config.width


@pytest.mark.parametrize("name", ["fourier", "conv"])
def test_the_image_size_is_asked_for_or_written_down_or_assumed_aloud(copy: Any, name: str) -> None:
    directory = copy(name)
    assert size_of(directory) == (224, 224)
    (note,) = load(directory).notes
    assert "224 x 224" in note
    assert "--image-size" in note
    configure(directory, image_size=[40, 64])
    assert size_of(directory) == (40, 64)
    preprocessor = directory / "preprocessor_config.json"
    preprocessor.write_text(json.dumps({"crop_size": 256, "size": {"height": 48, "width": 56}}))
    assert size_of(directory) == (48, 56)
    assert load(directory).notes == ()
    preprocessor.write_text(json.dumps({"size": 32}))
    assert size_of(directory) == (32, 32)
    preprocessor.write_text(json.dumps({"size": {"shortest_edge": 32}}))
    assert size_of(directory) == (40, 64)
    assert size_of(directory, LoadOptions(image_size=(44, 52))) == (44, 52)
    preprocessor.write_text(json.dumps({"size": -1}))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: size: expected an integer"):
        load(directory)


@pytest.mark.parametrize("name", ["language", "learned", "flow", "video"])
def test_an_image_size_for_what_has_its_own_is_refused(copy: Any, name: str) -> None:
    with pytest.raises(UsageError, match=rf"image_size \(--image-size\): {CASES[name].name} "):
        load(copy(name), LoadOptions(image_size=(32, 32)))


@pytest.mark.parametrize("size", [(0, 4), (4, -4), (4,), (4, 4, 4), "44", (4.0, 4), (10**9, 1), (16384, 16384), 224])
def test_an_image_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(UsageError, match=r"image_size \(--image-size\): expected"):
        LoadOptions(image_size=size)


def test_every_family_is_built_without_memory() -> None:
    """What a module keeps beside its weights comes from NumPy: else it would have no values."""
    for entry in zoo().values():
        with torch.device("meta"):
            module = entry.family.build(entry.config)
        assert all(parameter.is_meta for parameter in module.parameters())
        kept = set(module.state_dict())
        assert not [name for name, buffer in module.named_buffers() if name not in kept and buffer.is_meta]
