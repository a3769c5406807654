"""Models of krasserm's and lucidrains' packages, imported, give the packages' outputs."""

from __future__ import annotations

import json
import math
import re
import sys
import types

import pytest
import torch
from factories.weights import randomise
from models.oracle import relative, saved
from safetensors.torch import load_file, save_file

from perceiver_deploy.checkpoints import load
from perceiver_runtime.errors import CheckpointError

TOLERANCE = 2e-6

ENCODER = {
    "num_cross_attention_heads": 2,
    "num_self_attention_heads": 4,
    "num_self_attention_layers_per_block": 3,
    "num_self_attention_blocks": 2,
    "cross_attention_widening_factor": 2,
    "self_attention_widening_factor": 3,
}
DECODER = {"num_cross_attention_heads": 2, "cross_attention_widening_factor": 2}
SIZES = {"num_latents": 9, "num_latent_channels": 32}


def krasserm_text(tied: bool):
    from perceiver.model.text import mlm

    encoder = mlm.TextEncoderConfig(**ENCODER, vocab_size=50, max_seq_len=20, num_input_channels=24)
    decoder = mlm.TextDecoderConfig(
        **DECODER,
        vocab_size=50,
        max_seq_len=20,
        num_output_query_channels=None if tied else 28,
        cross_attention_residual=not tied,
    )
    config = mlm.MaskedLanguageModelConfig(encoder, decoder, **SIZES)
    return mlm.PerceiverMaskedLanguageModel(mlm.PerceiverMaskedLanguageModelConfig(config))


def krasserm_classifier():
    from perceiver.model.text import classifier

    encoder = classifier.TextEncoderConfig(
        **ENCODER, num_cross_attention_qk_channels=16, vocab_size=50, max_seq_len=20, num_input_channels=24
    )
    decoder = classifier.ClassificationDecoderConfig(**DECODER, num_output_query_channels=28, num_classes=5)
    config = classifier.TextClassifierConfig(encoder, decoder, **SIZES)
    return classifier.PerceiverTextClassifier(classifier.PerceiverTextClassifierConfig(config))


def krasserm_image(**repeats):
    from perceiver.model.vision import image_classifier

    encoder = image_classifier.ImageEncoderConfig(
        **{**ENCODER, "num_cross_attention_heads": 1, **repeats}, image_shape=(10, 14, 2), num_frequency_bands=6
    )
    decoder = image_classifier.ClassificationDecoderConfig(**DECODER, num_output_query_channels=28, num_classes=5)
    config = image_classifier.ImageClassifierConfig(encoder, decoder, **SIZES)
    return image_classifier.PerceiverImageClassifier(image_classifier.PerceiverImageClassifierConfig(config))


def without_data_sets(modules=("perceiver.data.vision", "perceiver.data.vision.optical_flow")):
    """Let the model be imported without the packages that its data sets need."""
    for name in modules:
        sys.modules.setdefault(name, types.SimpleNamespace(OpticalFlowProcessor=None, render_optical_flow=None))  # type: ignore[arg-type]


def krasserm_flow():
    without_data_sets()
    from perceiver.model.vision import optical_flow

    encoder = optical_flow.OpticalFlowEncoderConfig(
        **{**ENCODER, "num_cross_attention_heads": 1},
        image_shape=(8, 12),
        num_patch_hidden_channels=14,
        num_frequency_bands=6,
    )
    decoder = optical_flow.OpticalFlowDecoderConfig(
        num_cross_attention_heads=1,
        num_cross_attention_qk_channels=32,
        image_shape=(8, 12),
        rescale_factor=50.0,
        cross_attention_residual=False,
    )
    config = optical_flow.OpticalFlowConfig(encoder, decoder, **SIZES)
    return optical_flow.OpticalFlowPerceiver(optical_flow.OpticalFlowPerceiverConfig(config))


def image():
    return (torch.randn(2, 2, 10, 14),)


def channels_last(inputs):
    return (inputs[0].movedim(1, -1),)


OWN_BLOCK = {"num_self_attention_blocks": 3, "first_self_attention_block_shared": False}
READ_TWICE = {**OWN_BLOCK, "num_cross_attention_layers": 2}
READ_BY_ONE_LAYER = {
    "num_self_attention_blocks": 3,
    "num_cross_attention_layers": 3,
    "first_cross_attention_layer_shared": True,
}


def text():
    mask = torch.ones(3, 17, dtype=torch.long)
    mask[0, 9:] = 0
    mask[1] = 0  # a row of padding alone
    return torch.randint(0, 50, (3, 17)), mask


KRASSERM = {
    "masked language model, tied": (lambda: krasserm_text(True), text, lambda x: x),
    "masked language model, own output": (lambda: krasserm_text(False), text, lambda x: x),
    "text classifier": (krasserm_classifier, text, lambda x: x),
    "image classifier": (krasserm_image, image, channels_last),
    "image classifier, first block of its own": (lambda: krasserm_image(**OWN_BLOCK), image, channels_last),
    "image classifier that reads twice": (lambda: krasserm_image(**READ_TWICE), image, channels_last),
    "image classifier that reads by one layer": (lambda: krasserm_image(**READ_BY_ONE_LAYER), image, channels_last),
    "optical flow": (krasserm_flow, lambda: (torch.randn(2, 2, 27, 8, 12),), lambda x: x),
}


def agree(oracle, call, directory, draw, theirs):
    """Our imported model against the oracle, on inputs that matter to it."""
    inputs = draw()
    expected, other = (call(oracle, theirs(x)) for x in (inputs, draw()))
    assert relative(other, expected) > 1e-2, "the oracle ignores its input"
    return relative(load(directory).module(*inputs), expected)


@pytest.mark.parametrize("name", KRASSERM)
def test_equals_krasserm(name, tmp_path):
    build, draw, theirs = KRASSERM[name]
    oracle = randomise(build(), sharpness=1.5)
    assert agree(oracle, lambda m, x: m(*x).logits, saved(oracle, tmp_path), draw, theirs) < TOLERANCE


BEFORE_0_9 = (
    (r"cross_attend_block\.cross_attn", "cross_attend_blocks.0"),
    (r"cross_attend_block\.cross_ff", "cross_attend_blocks.1"),
    (r"(perceiver_io\.layers\.\d+)\.self_attns\.0", r"\1"),
    (r"\.self_attns\.", ".2."),
    (r"\.cross_attn\.", ".0."),
    (r"\.cross_ff\.", ".1."),
)


IO_BEFORE_0_9 = ((r"(layers\.\d+)\.self_attns\.0", r"\1"), *BEFORE_0_9)
IN_0_7 = ((r"\.to_out\.", ".to_out.0."), (r"\.net\.2\.", ".net.3."))


def rename_as_in_0_7(directory):
    """The names that 0.7 gave to the tensors of `Perceiver`."""
    rename(directory, (*BEFORE_0_9, *IN_0_7))


def rename_as_before(directory):
    """The names that the package gave to the same tensors until version 0.9."""
    rename(directory, BEFORE_0_9)


def rename(directory, names):
    tensors = load_file(directory / "model.safetensors")
    for pattern, name in names:
        tensors = {re.sub(pattern, name, old): tensor for old, tensor in tensors.items()}
    save_file(tensors, directory / "model.safetensors")


def lucidrains(kind: str, directory, oracle, arguments, **more):
    record = {"library": "perceiver-pytorch", "class": kind, "arguments": arguments, **more}
    (directory / "config.json").write_text(json.dumps(record))
    save_file({name: t.clone() for name, t in oracle.state_dict().items()}, directory / "model.safetensors")
    return directory


IMAGE = {
    "num_freq_bands": 5,
    "depth": 3,
    "max_freq": 10.0,
    "input_channels": 2,
    "num_latents": 9,
    "latent_dim": 32,
    "cross_heads": 2,
    "cross_dim_head": 12,
    "latent_heads": 4,
    "latent_dim_head": 10,
    "num_classes": 6,
    "self_per_cross_attn": 2,
}
LANGUAGE = {
    "dim": 24,
    "num_tokens": 50,
    "max_seq_len": 20,
    "depth": 3,
    "num_latents": 9,
    "latent_dim": 32,
    "cross_heads": 2,
    "cross_dim_head": 12,
    "latent_heads": 4,
    "latent_dim_head": 10,
}


def masked_image():
    mask = torch.ones(2, 8, 12, dtype=torch.long)
    mask[0, 5:] = 0
    mask[1, :, ::2] = 0
    return torch.randn(2, 8, 12, 2), mask


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("fourier", [True, False], ids=["Fourier", "no positions"])
@pytest.mark.parametrize("head", [True, False], ids=["head", "no head"])
def test_equals_lucidrains_perceiver(tied, fourier, head, tmp_path):
    from perceiver_pytorch import Perceiver

    arguments = {
        **IMAGE,
        "weight_tie_layers": tied,
        "fourier_encode_data": fourier,
        "final_classifier_head": head,
    }
    oracle = randomise(Perceiver(**arguments), sharpness=1.5)
    directory = lucidrains("Perceiver", tmp_path, oracle, arguments, sizes=[8, 12])
    for layout in (lambda _: None, rename_as_before):
        layout(directory)
        for draw in (masked_image, lambda: masked_image()[:1]):
            distance = agree(oracle, lambda m, x: m(x[0], *(t.bool() for t in x[1:])), directory, draw, lambda x: x)
            assert distance < TOLERANCE


@pytest.mark.parametrize(("version", "spaced"), [("0.7.3", torch.logspace), ("0.7.5", torch.linspace)])
def test_equals_a_lucidrains_perceiver_of_0_7(version, spaced, tmp_path, monkeypatch):
    """Frequencies were spaced logarithmically up to 0.7.3; names of tensors are the same in all releases of 0.7."""
    from perceiver_pytorch import Perceiver, perceiver_pytorch

    def encode(x, max_freq, num_bands):
        highest = math.log10(max_freq / 2) if spaced is torch.logspace else max_freq / 2
        angles = x[..., None] * spaced(float(spaced is torch.linspace), highest, num_bands) * math.pi
        return torch.cat([angles.sin(), angles.cos(), x[..., None]], dim=-1)

    monkeypatch.setattr(perceiver_pytorch, "fourier_encode", encode)
    oracle = randomise(Perceiver(**IMAGE), sharpness=1.5)
    directory = lucidrains("Perceiver", tmp_path, oracle, IMAGE, sizes=[8, 12], version=version)
    rename_as_in_0_7(directory)
    assert agree(oracle, lambda m, x: m(*x), directory, lambda: (torch.randn(2, 8, 12, 2),), lambda x: x) < TOLERANCE


def asked():
    """Inputs, queries, and a mask that hides the end of one row."""
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[0, 11:] = 0
    return torch.randn(2, 30, 24), torch.randn(2, 7, 20), mask


SEQUENCE = {name: value for name, value in LANGUAGE.items() if name not in ("num_tokens", "max_seq_len")}


@pytest.mark.parametrize("head", [5, None], ids=["head", "no head"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("decoder_ff", [False, True], ids=["attention alone", "with feed-forward"])
def test_equals_lucidrains_perceiver_io(tied, decoder_ff, head, tmp_path):
    from perceiver_pytorch import PerceiverIO

    arguments = {
        **SEQUENCE,
        "queries_dim": 20,
        "logits_dim": head,
        "weight_tie_layers": tied,
        "decoder_ff": decoder_ff,
        "seq_dropout_prob": 0.2,
    }
    oracle = randomise(PerceiverIO(**arguments), sharpness=1.5)
    directory = lucidrains("PerceiverIO", tmp_path, oracle, arguments)
    for names in ((), IO_BEFORE_0_9):
        rename(directory, names)
        distance = agree(oracle, lambda m, x: m(x[0], x[2].bool(), x[1]), directory, asked, lambda x: x)
        assert distance < TOLERANCE


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("decoder_ff", [False, True], ids=["attention alone", "with feed-forward"])
def test_equals_lucidrains_language_model(tied, decoder_ff, tmp_path):
    from perceiver_pytorch import PerceiverLM

    arguments = {**LANGUAGE, "weight_tie_layers": tied, "decoder_ff": decoder_ff}
    oracle = randomise(PerceiverLM(**arguments), sharpness=1.5)
    directory = lucidrains("PerceiverLM", tmp_path, oracle, arguments)
    for layout in (lambda _: None, rename_as_before):
        layout(directory)
        distance = agree(oracle, lambda m, x: m(x[0], mask=x[1].bool()), directory, text, lambda x: x)
        assert distance < TOLERANCE


def test_layers_said_to_share_weights_must_be_equal(tmp_path):
    from perceiver_pytorch import Perceiver

    arguments = {**IMAGE, "weight_tie_layers": True}
    directory = lucidrains("Perceiver", tmp_path, Perceiver(**arguments), arguments, sizes=[8, 12])
    tensors = load_file(directory / "model.safetensors")
    tensors["layers.2.cross_attn.fn.to_q.weight"].add_(1)
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.2\.cross_attn\.fn\.to_q\.weight"):
        load(directory)
