"""The multimodal autoencoder against transformers: by points, where transformers works; whole, against its parts."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from models.oracle import REDUCED, Case, exact_positions, relative, saved

from perceiver_deploy.checkpoints import huggingface
from perceiver_deploy.models.modalities import space_to_depth
from perceiver_deploy.models.multimodal import MultimodalAutoencoder, coordinates_of

TOLERANCE = 1e-5
EXACT_TOLERANCE = 2e-6
MODALITIES = ("image", "audio", "label")


def inputs(frames, size, samples, labels):
    return lambda: {
        "image": torch.randn(1, frames, 3, size, size),
        "audio": torch.randn(1, samples, 1),
        "label": torch.zeros(1, labels),
    }


SMALL = Case(
    "PerceiverForMultimodalAutoencoding",
    {
        **REDUCED,
        "num_frames": 4,
        "image_size": 16,
        "output_shape": [1, 4, 16, 16],
        "audio_samples_per_frame": 64,
        "output_num_channels": 40,
    },
    inputs(4, 16, 256, 7),
    sharpness=1.0,
)
RELEASED = Case(
    "PerceiverForMultimodalAutoencoding",
    {
        "num_latents": 784,
        "d_latents": 512,
        "num_self_attends_per_block": 8,
        "num_self_attention_heads": 8,
        "num_cross_attention_heads": 1,
        "image_size": 56,
        "num_labels": 700,
    },
    inputs(16, 224, 30720, 700),
)


def draw(sizes, count):
    return torch.randperm(math.prod(sizes))[:count]


def by_points(oracle, feeds, points):
    return oracle(feeds, subsampled_output_points={**points, "label": None}).logits


def ours_by_points(model, feeds, points):
    coordinates = {name: coordinates_of(index, getattr(model.config, SIZES[name])) for name, index in points.items()}
    answers = model(feeds["image"], feeds["audio"], coordinates)
    return {**answers, "audio": answers["audio"].flatten(1)}


SIZES = {"image": "video", "audio": "audio"}


def check_points(case, directory, count):
    oracle, feeds = case.oracle(), case.inputs()
    model = huggingface.load(saved(oracle, directory)).module
    points = {"image": draw(model.config.video, count), "audio": draw(model.config.audio, count // 4)}
    expected = by_points(oracle, feeds, points)
    with exact_positions():
        exact = by_points(oracle, feeds, points)
    other = by_points(oracle, case.inputs(), points)
    got = ours_by_points(model, feeds, points)
    for name in MODALITIES:
        assert relative(other[name], expected[name]) > 1e-2, "the oracle ignores its input"
    return {n: (relative(got[n], expected[n]), relative(got[n], exact[n])) for n in MODALITIES}


def test_any_points_equal_transformers(tmp_path):
    for name, (distance, exact) in check_points(SMALL, tmp_path, 100).items():
        assert distance < TOLERANCE, name
        assert exact < EXACT_TOLERANCE, name


@pytest.mark.full
def test_any_points_equal_transformers_at_released_size(tmp_path):
    torch.set_num_threads(2)
    # As it is, transformers rounds sines of up to 48,255 rad to FP32, and differs from itself with exact positions by
    # more than the tolerance: the comparison that counts is the one with exact positions.
    distances = check_points(RELEASED, tmp_path, 6272)
    print({name: f"{distance:.1e}, exact {exact:.1e}" for name, (distance, exact) in distances.items()})
    for name, (_, exact) in distances.items():
        assert exact < TOLERANCE, name


def whole(oracle, feeds):
    """What transformers means to compute without points, where its own code fails: its parts, one by one."""
    perceiver = oracle.perceiver
    tokens, sizes, _ = perceiver.input_preprocessor(feeds)
    latents = perceiver.embeddings(batch_size=1)
    latents = perceiver.encoder(latents, inputs=tokens).last_hidden_state
    decoder, config = perceiver.decoder, oracle.config
    grids = {
        "audio": (config.num_frames * config.audio_samples_per_frame // config.samples_per_patch,),
        "image": tuple(config.output_shape[1:]),
    }
    queries, sizes = [], {"label": 1}
    for name in sorted(decoder.modalities):
        part = decoder.modalities[name].decoder if name != "audio" else decoder.modalities[name]
        encoding = part.output_position_encodings
        query = encoding(1) if name == "label" else encoding(grids[name], 1, device="cpu", dtype=torch.float32)
        padding = decoder.padding[name].expand(1, query.shape[1], -1)
        queries.append(torch.cat([query, padding], dim=2))
        sizes[name] = query.shape[1]
    decoded = decoder(torch.cat(queries, dim=1), latents).logits
    return perceiver.output_postprocessor(decoded, modality_sizes=sizes)


def test_the_whole_output_equals_the_parts_of_transformers(tmp_path):
    oracle, feeds = SMALL.oracle(), SMALL.inputs()
    with pytest.raises(RuntimeError, match="831"):
        oracle(feeds)
    with exact_positions():
        expected = whole(oracle, feeds)
    loaded = huggingface.load(saved(oracle, tmp_path)).module
    model = MultimodalAutoencoder(dataclasses.replace(loaded.config, spacing="full"))  # type: ignore[arg-type,type-var]
    model.load_state_dict(loaded.state_dict())
    got = model.reconstruct(feeds["image"], feeds["audio"], chunk=100)
    assert relative(got["image"].flatten(1, 3), expected["image"]) < EXACT_TOLERANCE
    assert relative(got["audio"][..., 0], expected["audio"]) < EXACT_TOLERANCE
    assert relative(got["label"], expected["label"]) < EXACT_TOLERANCE
    subsampled = loaded.reconstruct(feeds["image"], feeds["audio"], chunk=1000)
    assert relative(subsampled["image"], got["image"]) > 1e-2, "the two spacings are two functions"


def test_the_input_label_has_no_effect_in_transformers():
    """Why the label is no input of ours."""
    oracle, feeds = SMALL.oracle(), SMALL.inputs()
    points = {"image": torch.arange(5), "audio": torch.arange(3)}
    shown = by_points(oracle, {**feeds, "label": torch.randn(1, 7)}, points)
    assert torch.equal(shown["label"], by_points(oracle, feeds, points)["label"])


def test_chunks_of_any_size_decode_to_the_same(tmp_path):
    model = huggingface.load(saved(SMALL.oracle(), tmp_path)).module
    feeds = SMALL.inputs()
    whole, pieces = (model.reconstruct(feeds["image"], feeds["audio"], chunk) for chunk in (10_000, 37))
    assert whole["image"].shape == (1, 4, 16, 16, 3)
    assert whole["audio"].shape == (1, 256, 1)
    for name in MODALITIES:
        assert relative(pieces[name], whole[name]) < 1e-6


def test_patches_hold_pixels_row_major_and_channels_innermost():
    video = torch.arange(2 * 3 * 4 * 8).reshape(1, 2, 3, 4, 8)
    patches = space_to_depth(video, 4)
    assert patches.shape == (1, 4, 48)
    assert torch.equal(patches[0, 1], video[0, 0, :, :, 4:].permute(1, 2, 0).flatten())
