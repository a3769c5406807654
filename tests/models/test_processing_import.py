"""Processing that a Hugging Face checkpoint states, against transformers' own; refusals of what is unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PerceiverTokenizer
from transformers.image_processing_backends import PilBackend
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.mobilenet_v1.image_processing_pil_mobilenet_v1 import MobileNetV1ImageProcessorPil
from transformers.models.perceiver.image_processing_pil_perceiver import PerceiverImageProcessorPil
from transformers.models.pvt.image_processing_pil_pvt import PvtImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from perceiver_deploy.checkpoints.huggingface.image_processor import PROCESSORS, read_image_processor
from perceiver_deploy.checkpoints.huggingface.tokenizer import read_tokenizer
from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.released import RELEASED
from perceiver_runtime.errors import CheckpointError, FeedError, UsageError
from perceiver_runtime.processing.pixels import image_values
from perceiver_runtime.processing.processor import processor_of
from perceiver_runtime.settings import Processing

ORACLES: dict[str, type[PilBackend]] = {
    oracle.__name__.removesuffix("Pil"): oracle
    for oracle in (
        PerceiverImageProcessorPil,
        ViTImageProcessorPil,
        DeiTImageProcessorPil,
        PvtImageProcessorPil,
        SiglipImageProcessorPil,
        BlipImageProcessorPil,
        CLIPImageProcessorPil,
        ChineseCLIPImageProcessorPil,
        BitImageProcessorPil,
        MobileNetV1ImageProcessorPil,
    )
}
SIDE = st.integers(1, 60)
PAIR = st.fixed_dictionaries({"height": SIDE, "width": SIDE})
SIZE = st.one_of(PAIR, SIDE, st.fixed_dictionaries({"shortest_edge": SIDE}))
NUMBERS = st.one_of(st.floats(0.1, 2.0), st.lists(st.floats(0.1, 2.0), min_size=3, max_size=3))
STATED = st.fixed_dictionaries(
    {},
    optional={
        "do_resize": st.sampled_from((True, False, None)),
        "size": SIZE,
        "resample": st.integers(0, 5),
        "do_center_crop": st.sampled_from((True, False, None)),
        "crop_size": st.one_of(PAIR, SIDE),
        "do_rescale": st.booleans(),
        "rescale_factor": st.floats(1e-3, 1.0),
        "do_normalize": st.booleans(),
        "image_mean": NUMBERS,
        "image_std": NUMBERS,
        "do_convert_rgb": st.booleans(),
        "do_pad": st.just(False),
    },
)


def test_every_known_processor_has_an_oracle() -> None:
    assert set(ORACLES) == set(PROCESSORS)


@pytest.mark.parametrize("name", ORACLES)
def test_defaults_equal_the_originals(tmp_path: Path, name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 61, 3)).astype(np.uint8)
    _compare(tmp_path, name, {}, image)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(tuple(ORACLES)), STATED, st.integers(8, 90), st.integers(8, 90), st.integers(0, 9))
def test_stated_settings_equal_the_original(
    tmp_path_factory: pytest.TempPathFactory, name: str, stated: dict[str, Any], height: int, width: int, seed: int
) -> None:
    """Any sizes, crops that are larger than the image, all filters, steps left out."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    _compare(tmp_path_factory.mktemp("c"), name, stated, np.where(image > 127, 255, 0).astype(np.uint8))


def _compare(directory: Path, name: str, stated: dict[str, Any], image: np.ndarray) -> None:
    (directory / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": name, **stated}))
    found = read_image_processor(directory)
    assert found is not None
    try:
        oracle = ORACLES[name](**stated)
        (expected,) = oracle(image, input_data_format="channels_last")["pixel_values"]
    except (ValueError, AttributeError, TypeError):
        assert found.image is None  # what the original can't do either
        return
    assert found.image is not None, found.processing.refusal
    if found.image.crop and int(min(found.image.crop) * min(image.shape[:2])) < 1:
        with pytest.raises(FeedError, match="expected a shorter side"):
            image_values(image, found.image)
        return
    np.testing.assert_array_equal(image_values(image, found.image), np.asarray(expected, np.float32))


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        (
            {"image_processor_type": "ConvNextImageProcessor"},
            "ConvNextImageProcessor is not known; expected one of Per",
        ),
        ({"image_processor_type": ["a"]}, r"\['a'\] is not known"),
        ({"crop_pct": 0.9}, "the setting crop_pct = 0.9 is not known"),
        ({"auto_map": {"AutoImageProcessor": "code.Mine"}}, "the setting auto_map = .* is not known"),
        ({"do_pad": True}, "do_pad: padding is not supported"),
        ({"resample": 7}, "resample: expected one of 0 .nearest., 1 .lanczos.* got 7"),
        ({"size": {"shortest_edge": 30}}, "size: expected height and width, got"),
        (
            {"size": {"longest_edge": 30}, "image_processor_type": "CLIPImageProcessor"},
            "size: expected height and width",
        ),
        ({"crop_size": {"shortest_edge": 30}}, "crop_size: expected height and width"),
        ({"image_mean": [0.5]}, "expected three means and three positive deviations, got"),
        ({"image_std": [0.5, 0, 0.5]}, "three positive deviations, got"),
        ({"data_format": "channels_last"}, "data_format: expected channels_first"),
    ],
)
def test_what_is_not_known_is_refused_where_it_is_used(tmp_path: Path, stated: dict[str, Any], why: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    found = read_image_processor(tmp_path)
    assert found is not None
    with pytest.raises(UsageError, match=rf"processing: preprocessor_config\.json of the checkpoint: .*{why}"):
        processor_of(found.processing)


@pytest.mark.parametrize(
    "stated", [{"image_mean": "x"}, {"resample": "bicubic"}, {"do_resize": 1}, {"size": {"height": -4, "width": 3}}]
)
def test_what_is_no_value_is_refused_at_import(tmp_path: Path, stated: dict[str, Any]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {next(iter(stated))}: expected"):
        read_image_processor(tmp_path)


def test_a_fast_processor_is_the_same_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessorFast"}))
    found = read_image_processor(tmp_path)
    assert found is not None
    assert found.image is not None
    assert "resizes with torchvision" in found.notes[0]


def _text(directory: Path, given: dict[str, Any], vocabulary: int = 262) -> Processing:
    (directory / "tokenizer_config.json").write_text(json.dumps(given))
    family = FAMILIES["masked-language-model"]
    assert family.processing is not None
    return read_tokenizer(directory, family.processing(RELEASED["language-perceiver"]), vocabulary)


def test_a_tokenizer_of_other_names_equals_the_original(tmp_path: Path) -> None:
    names = {"mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>", "model_max_length": 30}
    PerceiverTokenizer(**names).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    processing = _text(tmp_path, saved)
    assert processing.refusal == ""
    texts = ["a <mask> b", "<s>ü [MASK]", ""]
    expected = PerceiverTokenizer(**names)(texts, padding="longest", return_tensors="np")
    got = processor_of(processing).encode(texts)
    for name in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(got[name], expected[name])
    assert processor_of(processing).tokenizer().max_length == 30


@pytest.mark.parametrize(
    ("given", "vocabulary", "why"),
    [
        ({"tokenizer_class": "BertTokenizer"}, 262, "'BertTokenizer' is not known; expected PerceiverTokenizer"),
        ({}, 300, "expected a vocabulary of 262 ids"),
        ({"padding_side": "left"}, 262, "padding_side: expected right, got left"),
        ({"additional_special_tokens": ["<x>"]}, 262, r"additional_special_tokens: \['<x>'\] are not supported"),
        ({"added_tokens_decoder": {"262": {"content": "<x>"}}}, 262, "added_tokens_decoder: expected the 6"),
        ({"mask_token": {"content": "[MASK]", "lstrip": True}}, 262, ".*with the blanks around it left alone"),
        ({"auto_map": {"AutoTokenizer": "code.Mine"}}, 262, "its code .* is never run"),
    ],
)
def test_another_tokenizer_is_refused_where_it_is_used(
    tmp_path: Path, given: dict[str, Any], vocabulary: int, why: str
) -> None:
    with pytest.raises(UsageError, match=f"processing: the checkpoint's tokenizer: {why}"):
        processor_of(_text(tmp_path, given, vocabulary))
