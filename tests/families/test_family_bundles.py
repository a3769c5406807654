"""Bundles of the seven released classes equal transformers, at every size they take; others are refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from families.conftest import SMALL_CASES, Exported
from models.oracle import relative

from perceiver_runtime import open_session
from perceiver_runtime.errors import FeedError

TOLERANCE = 1e-4
FAMILIES = [family for family in SMALL_CASES if family != "multimodal-autoencoder"]
TEXT = ["masked-language-model", "sequence-classifier"]
IMAGES = [family for family in SMALL_CASES if family.startswith("image-classifier")]
OUTPUT = {"optical-flow": "flow"}

pytestmark = pytest.mark.xdist_group("families")


def check(made: Exported, family: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The session's answer, held against transformers'."""
    got = made.run(inputs)[OUTPUT.get(family, "logits")]
    expected = made.oracle(**inputs).logits
    if family == "masked-language-model":  # transformers answers every position there is
        expected = expected[:, : got.shape[1]]
    assert relative(got, expected) < TOLERANCE
    return got


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_transformers(exported, family):
    made = exported(family)
    first, second = (check(made, family, made.case.inputs()) for _ in range(2))
    assert relative(first, second) > 1e-2, "the input does not matter: parity would prove nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_takes_any_batch(exported, family):
    made = exported(family)
    inputs = made.case.inputs()
    for batch in (1, 4):
        rows = [i % 2 for i in range(batch)]
        got = check(made, family, {name: tensor[rows] for name, tensor in inputs.items()})
        assert got.shape[0] == batch


@pytest.mark.parametrize("family", TEXT)
@pytest.mark.parametrize("length", [1, 2, 7, 20])
def test_takes_any_length(exported, family, length):
    made = exported(family)
    ids = torch.randint(0, 50, (2, length))
    mask = torch.ones(2, length, dtype=torch.long)
    mask[0, length // 2 + 1 :] = 0
    check(made, family, {"input_ids": ids, "attention_mask": mask})


@pytest.mark.parametrize("family", TEXT)
def test_a_mask_left_out_is_all_ones(exported, family):
    made = exported(family)
    inputs = made.case.inputs()
    whole = made.run({"input_ids": inputs["input_ids"]})["logits"]
    ones = torch.ones_like(inputs["attention_mask"])
    assert torch.equal(whole, made.run({**inputs, "attention_mask": ones})["logits"])
    assert relative(made.run(inputs)["logits"], whole) > 1e-2


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("family", TEXT)
def test_a_row_of_padding_alone_attends_all_equally_as_in_transformers(exported, family, backend):
    pytest.importorskip(backend)
    made = exported(family)
    with open_session(made.session.bundle, backend, threads=1) as session:
        made = dataclasses.replace(made, session=session)
        inputs = made.case.inputs()
        inputs["attention_mask"][1] = 0
        unmasked = made.run({"input_ids": inputs["input_ids"]})["logits"]
        assert relative(check(made, family, inputs)[1:], unmasked[1:]) > 1e-2


def test_positions_can_be_asked_one_by_one(exported):
    made = exported("masked-language-model")
    feeds = {"input_ids": made.case.inputs()["input_ids"].numpy()}
    encoded = made.session.encode(feeds)
    some = np.array([11, 3])
    got = made.session.decode({**encoded, "positions": some})["logits"]
    assert np.allclose(got, made.session.run(feeds)["logits"][:, some], atol=1e-5)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_ids_outside_of_their_tables_are_refused(exported, backend):
    pytest.importorskip(backend)
    made = exported("masked-language-model")
    ids = made.case.inputs()["input_ids"].numpy()
    with open_session(made.session.bundle, backend, threads=1) as session:
        encoded = session.encode({"input_ids": ids})
        for bad in (-100, -1, 50, 2**40):
            feeds = {"input_ids": np.where(np.arange(ids.shape[1]) == 7, bad, ids)}
            for call in (session.run, session.encode):
                with pytest.raises(FeedError, match=rf"input_ids: expected 0 to 49, got {bad} at \[0, 7\]"):
                    call(feeds)
        with pytest.raises(FeedError, match=r"positions: expected 0 to 19, got 20 at \[1\]"):
            session.decode({**encoded, "positions": np.array([0, 20])})
        with pytest.raises(FeedError, match=r"attention_mask: expected 0 to 1, got 2 at \[0, 0\]; give 1"):
            session.run({"input_ids": ids, "attention_mask": np.full_like(ids, 2)})


def test_points_outside_of_a_video_are_refused(exported):
    made = exported("multimodal-autoencoder")
    limits = {s.name: s.range.max for s in made.session.inputs if s.range}
    assert set(limits) == {"image_index", "audio_index"}
    inputs = {n: t.numpy() for n, t in made.case.inputs().items() if n != "label"}
    for name, most in limits.items():
        for bad in (-1, most + 1):
            with pytest.raises(FeedError, match=rf"{name}: expected 0 to {most}, got {bad} at \[2\]"):
                made.session.run({**inputs, name: np.array([0, most, bad])})


@pytest.mark.parametrize(
    ("family", "name", "shape"),
    [
        ("masked-language-model", "input_ids", (1, 21)),
        ("image-classifier-learned", "pixel_values", (1, 3, 12, 13)),
        ("image-classifier-fourier", "pixel_values", (1, 3, 64, 48)),
        ("image-classifier-conv", "pixel_values", (1, 3, 112, 112)),
        ("optical-flow", "inputs", (1, 2, 27, 18, 12)),
        ("multimodal-autoencoder", "image", (1, 5, 3, 16, 16)),
    ],
)
def test_other_sizes_are_refused(exported, family, name, shape):
    made = exported(family)
    if family == "multimodal-autoencoder":
        feeds = {n: t.numpy() for n, t in made.case.inputs().items() if n != "label"}
    else:
        feeds = {}
    feeds[name] = np.zeros(shape, np.int64 if name == "input_ids" else np.float32)
    with pytest.raises(FeedError, match=r"is fixed in this bundle|this bundle takes 1 to 20"):
        made.session.run(feeds, [made.session.outputs[-1].name])


@pytest.mark.parametrize("family", ["optical-flow", "multimodal-autoencoder"])
def test_long_inputs_and_outputs_are_chunked(exported, family):
    steps = exported(family).session.manifest.pipeline.steps
    chunks = {step.component: step.chunk.size for step in steps if step.chunk}
    assert (
        chunks
        == {
            "optical-flow": {"encoder_begin": 5, "encoder_fold": 5, "decoder": 5},
            "multimodal-autoencoder": {"encoder_fold": 1, "image_decoder": 100, "audio_decoder": 16},
        }[family]
    )


def test_multimodal_points_equal_transformers(exported):
    made = exported("multimodal-autoencoder")
    clip = made.case.inputs()
    points = {"image": torch.randperm(4 * 16 * 16)[:130], "audio": torch.randperm(16)[:5]}
    expected = made.oracle(clip, subsampled_output_points={**points, "label": None}).logits
    feeds = {"image": clip["image"], "audio": clip["audio"]}
    got = made.run({**feeds, **{f"{name}_index": index for name, index in points.items()}})
    assert relative(got["image"], expected["image"]) < TOLERANCE
    assert relative(got["audio"].flatten(1), expected["audio"]) < TOLERANCE
    assert relative(got["label"], expected["label"]) < TOLERANCE
    assert torch.equal(made.run(feeds, ["label"])["label"], got["label"])


def test_multimodal_whole_output_is_its_points_put_together(exported):
    made = exported("multimodal-autoencoder")
    clip = made.case.inputs()
    encoded = made.session.encode({name: clip[name].numpy() for name in ("image", "audio")})
    every = np.arange(math.prod((4, 16, 16)))
    whole = made.session.decode(encoded, {"image_index": every}, ["image"])["image"]
    pieces = [
        made.session.decode(encoded, {"image_index": piece}, ["image"])["image"] for piece in np.array_split(every, 3)
    ]
    assert np.allclose(np.concatenate(pieces, axis=1), whole, atol=1e-5)
