"""Data sets of the hybrid models: how texts and emoji are read and split, and what is shipped of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perceiver_deploy.api.evaluate import evaluate_bundle
from perceiver_deploy.api.export import export
from perceiver_deploy.datasets import DATASETS
from perceiver_deploy.datasets import emoji as emoji_data
from perceiver_deploy.datasets import languages as language_data
from perceiver_deploy.datasets.emoji.sample import read_sample as read_emoji_sample
from perceiver_deploy.datasets.languages.sample import read_sample as read_text_sample
from perceiver_deploy.sources.source import resolve
from perceiver_deploy.zoo import ZOO_DIRECTORY
from perceiver_runtime.errors import DatasetError, UnavailableError
from perceiver_runtime.evaluation.metrics import evaluate_classification
from zoo_training.data.emoji import Sources, concept, held_out, read_emoji
from zoo_training.data.languages import LabelledText, clean, group_messages, read_texts, split
from zoo_training.edit_distance import similarity
from zoo_training.emoji_score import score
from zoo_training.languages import MIN_WORDS, crop

LINES = """\
# group: People & Body
# subgroup: person-role
1F468 200D 1F692    ; fully-qualified     # X E4.0 man firefighter
1F468 1F3FB 200D 1F692 ; fully-qualified  # X E4.0 man firefighter: light skin tone
1F468 1F3FB 200D 1F692 ; minimally-qualified # X E4.0 man firefighter: light skin tone
# subgroup: emotion
2764 FE0F           ; fully-qualified     # X E0.6 red heart
2764                ; unqualified         # X E0.6 red heart
"""


def test_messages_of_like_wording_are_one_group() -> None:
    groups = group_messages(
        ["Select %s to change", "Select %(name)s to view", "Select %s to view it", "Log out", "LOG OUT!", "Delete"]
    )
    assert groups["Select %s to change"] != groups["Log out"] != groups["Delete"]
    assert groups["Select %(name)s to view"] == groups["Select %s to view it"]
    assert groups["Log out"] == groups["LOG OUT!"]


def test_a_group_is_on_one_side_of_the_split() -> None:
    texts = [LabelledText(f"text {i}", i % 3, i // 7) for i in range(140)]
    training, held = split(texts, 0.25, seed=1)
    assert len(held) == 35
    assert not {t.group for t in training} & {t.group for t in held}
    assert split(texts, 0.25, seed=1) == (training, held)


def test_texts_are_cleaned_cropped_and_encoded() -> None:
    assert clean("Hello %(name)s, <b>you</b>   have {n} &amp; %d") == "Hello , you have"
    generator = torch.Generator().manual_seed(0)
    text = "one two three four five six"
    crops = {crop(text, generator) for _ in range(200)}
    assert len(crops) > 8
    assert all(part in text and len(part.split()) >= MIN_WORDS for part in crops)
    ids = language_data.encode(["ab", "\u00e9" * 100])
    assert ids.shape == (2, language_data.LENGTH)
    assert ids[0, :3].tolist() == [98, 99, 0]
    assert ids[1].max() < language_data.VOCABULARY


def test_absent_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"Django 5\.2"):
        read_texts(tmp_path)
    with pytest.raises(UnavailableError, match="fonts-noto-color-emoji"):
        Sources(tmp_path / "f", tmp_path / "n").check()
    with pytest.raises(DatasetError, match="install again"):
        read_text_sample(tmp_path / "sample.json")
    with pytest.raises(DatasetError, match="install again"):
        read_emoji_sample(tmp_path / "sample.npz")


def test_emoji_are_read_with_kind_version_and_concept(tmp_path: Path) -> None:
    (tmp_path / "names").write_text(LINES, encoding="utf-8")
    emoji = read_emoji(tmp_path / "names")
    assert [(e.name, e.kind, e.version, e.concept) for e in emoji] == [
        ("man firefighter", "person-role", 4.0, "firefighter"),
        ("man firefighter: light skin tone", "person-role", 4.0, "firefighter"),
        ("red heart", "emotion", 0.6, "red heart"),
    ]
    assert emoji[2].text == "\u2764\ufe0f"
    assert concept("woman: dark skin tone, red hair") == "woman"


def test_held_out_concepts_are_whole_and_variants_familiar() -> None:
    from zoo_training.data.emoji import Emoji

    tones = ("", ": light skin tone", ": dark skin tone")
    names = [f"{who} role{i}{tone}" for i in range(60) for who in ("man", "woman") for tone in tones]
    emoji = [Emoji(name, name, "person", 4.0, concept(name)) for name in names]
    new_concept, new_variant = held_out(emoji)
    assert not (new_concept & new_variant).any()
    assert len({e.concept for e, new in zip(emoji, new_concept, strict=True) if new}) == 6
    assert new_concept.sum() == 6 * 6
    seen = {e.concept for e, a, b in zip(emoji, new_concept, new_variant, strict=True) if not (a | b)}
    varied = [e for e, new in zip(emoji, new_variant, strict=True) if new]
    assert varied
    assert all(e.concept in seen and "skin tone" in e.name for e in varied)


def test_edit_similarity_is_levenshteins() -> None:
    first, second = ["kitten", "", "abc", "flaw", "a", ""], ["sitting", "", "abc", "lawn", "", "xy"]
    np.testing.assert_allclose(similarity(first, second), [4 / 7, 1, 1, 1 / 2, 0, 0])


def test_names_are_encoded_and_decoded() -> None:
    ids = emoji_data.encode(["caf\u00e9", "tiger"])
    assert ids.shape == (2, emoji_data.LENGTH)
    assert emoji_data.decode([*ids[0].tolist(), emoji_data.STOP, 99]) == "caf\u00e9"
    assert emoji_data.decode([emoji_data.OFFSET + 0xC3, emoji_data.STOP]) == "\ufffd"


def test_shipped_samples_do_not_overlap() -> None:
    calibration, held = read_text_sample()
    assert not set(calibration.texts) & set(held.texts)
    assert set(held.languages) == set(range(len(language_data.LANGUAGES)))
    splits = read_emoji_sample()
    names = [set(table.names.tolist()) for table in (splits.training, splits.variants, splits.concepts)]
    assert sum(map(len, names)) == len(set.union(*names))


def test_shipped_language_identifier_is_as_good_as_it_says() -> None:
    model, data = resolve("language-identifier"), DATASETS["languages"]()
    (whole,) = data.scored[0].samples.batches(10_000)
    ids = torch.from_numpy(whole.feeds["input_ids"][::4])
    with torch.inference_mode():
        logits = model.module(ids=ids)["logits"].numpy()
    assert model.pretrained
    assert evaluate_classification(logits, whole.targets["logits"][::4], data.labels).accuracy >= 0.85


@pytest.mark.full
def test_int8_languages_are_within_a_point(tmp_path: Path) -> None:
    export("language-identifier", tmp_path / "int8", precision="int8")
    report = evaluate_bundle(tmp_path / "int8")
    assert report.reference.accuracy >= 0.85
    assert report.difference["accuracy"] >= -0.01


def test_shipped_emoji_model_is_above_its_baselines() -> None:
    model, splits = resolve("emoji-namer").module, read_emoji_sample()
    scores = score(model, splits)
    assert scores.kinds["variants"] > 0.95 > 2 * scores.kinds_of_majority["variants"]
    assert scores.kinds["concepts"] > 1.5 * scores.kinds_of_majority["concepts"]
    assert scores.matching["variants"] > 0.85
    assert scores.matching["concepts"] > 0.6
    names = scores.names["variants"]
    assert names.spelt.concept > 0.8 > 20 * names.constant.concept
    assert names.spelt.similarity > names.constant.similarity + 0.15
    assert names.spelt.exact > names.constant.exact == names.nearest.exact == 0.0
    assert names.bits_per_byte < 0.3 < names.bits_per_byte_of_other_picture
    assert scores.versions["variants"].mae < 0.5 * scores.versions["variants"].mae_of_median


def test_checkpoints_are_under_two_megabytes() -> None:
    for name in ("emoji-namer", "language-identifier"):
        assert (ZOO_DIRECTORY / name / "model.safetensors").stat().st_size < 2_000_000
