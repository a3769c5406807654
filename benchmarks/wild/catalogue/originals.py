"""Perceivers in the sense of the papers: perceiver-pytorch and what was derived from it, perceiver-io, transformers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import nn

from perceiver_runtime.tensors import Range
from wild.entry import Entry, Feeds, features, fixed, mask, normal, pending, pictures, texts, without_init

LUCIDRAINS, KRASSERM, TRANSFORMERS = "perceiver-pytorch==0.11.0", "perceiver-io==0.11.0", "transformers==5.23.0"
TRUNK = {"num_latents": 256, "latent_dim": 512}
IMAGE = {**TRUNK, "input_channels": 3, "num_freq_bands": 6, "max_freq": 10.0, "depth": 2}
LENGTH = Range(1, 128, 1024)


def lucidrains(module: str, kind: str, **arguments: Any) -> nn.Module:
    return pending(f"perceiver_pytorch.{module}", kind)(**arguments)


def io_inputs(random: np.random.Generator, batch: int) -> Feeds:
    return {
        "data": features(random, batch, 512, 32),
        "mask": mask(random, batch, 512).astype(bool),
        "queries": features(random, batch, 128, 32),
    }


def with_prefix(random: np.random.Generator, batch: int) -> Feeds:
    return {**texts(256)(random, batch), "prefix_len": 192}


def causal(kind: str, module: str, **sizes: Any) -> nn.Module:
    place = pending(f"perceiver.model.{module}", f"{kind}Config")
    config = place(max_seq_len=256, max_latents=64, num_channels=512, num_self_attention_layers=4, **sizes)
    return pending(f"perceiver.model.{module}", kind)(config)


def symbolic_audio() -> nn.Module:
    without_init("perceiver.model.audio", "perceiver.model.audio.symbolic")
    return causal("SymbolicAudioModel", "audio.symbolic.backend", vocab_size=389)


def mnist() -> nn.Module:
    place = "perceiver.model.vision.image_classifier.backend"
    encoder = pending(place, "ImageEncoderConfig")(
        image_shape=(28, 28, 1),
        num_frequency_bands=32,
        num_cross_attention_layers=2,
        num_cross_attention_heads=1,
        num_self_attention_blocks=3,
        num_self_attention_layers_per_block=3,
        first_self_attention_block_shared=False,
    )
    decoder = pending(place, "ClassificationDecoderConfig")(
        num_output_query_channels=128, num_classes=10, num_cross_attention_heads=1
    )
    config = pending("perceiver.model.core", "PerceiverIOConfig")(encoder, decoder, 32, 128)
    return pending(place, "ImageClassifier")(config)


def perceiver_model() -> nn.Module:
    """A `PerceiverModel` put together by hand: text in, a class out."""
    place = "transformers.models.perceiver.modeling_perceiver"
    config = pending("transformers", "PerceiverConfig")(
        num_latents=64, d_latents=512, d_model=256, num_blocks=3, num_self_attends_per_block=2, num_labels=5
    )
    query = {"num_channels": 512, "index_dims": 1}
    decoder = pending(place, "PerceiverClassificationDecoder")(
        config, num_channels=512, trainable_position_encoding_kwargs=query, use_query_residual=True
    )
    preprocessor = pending(place, "PerceiverTextPreprocessor")(config)
    return pending("transformers", "PerceiverModel")(config, input_preprocessor=preprocessor, decoder=decoder)


def text_and_mask(random: np.random.Generator, batch: int) -> Feeds:
    return {**texts(256, "inputs")(random, batch), "attention_mask": mask(random, batch, 256)}


def modalities(package: str) -> list[Any]:
    """A video, an image of 3 channels and timed audio."""
    kind = pending("perceiver_pytorch.modalities", "InputModality")
    return [
        kind(name="video", input_channels=3, input_axis=3, num_freq_bands=6, max_freq=4.0),
        kind(name="image", input_channels=3, input_axis=2, num_freq_bands=6, max_freq=4.0),
        kind(name="audio", input_channels=1, input_axis=1, num_freq_bands=6, max_freq=8.0),
    ]


def several(random: np.random.Generator, batch: int) -> Feeds:
    image = pictures(32, name="image")(random, batch)["image"]
    return {
        "multi_modality_data.video": np.stack([image[:, ::2, ::2]] * 4, 1)
        + 0.1 * features(random, batch, 4, 16, 16, 3),
        "multi_modality_data.image": image,
        "multi_modality_data.audio": features(random, batch, 256, 1),
    }


def multi_modality(**more: Any) -> nn.Module:
    kind = pending("perceiver_pytorch.multi_modality_perceiver", "MultiModalityPerceiver")
    return kind(modalities=modalities("multi"), depth=4, num_latents=12, latent_dim=64, num_classes=20, **more)


def hierarchical() -> nn.Module:
    place = "perceiver_pytorch.hierarchical_multi_modality_perceiver"
    configurator = pending(place, "HierarchicalConfigurator")(depth=3, num_latents_begin=32, latent_dim_begin=64)
    kind = pending(place, "HierarchicalMultiModalityPerceiver")
    return kind(modalities=modalities("multi"), depth=3, num_classes=20, configurator=configurator)


def multi_perceiver() -> nn.Module:
    kind = pending("perceiver_pytorch.multi_perceiver_pytorch", "MultiPerceiver")
    return kind(
        modalities=modalities("multi"), queries_dim=64, depth=4, num_latents=64, latent_dim=256, output_shape=16
    )


def asked_for_several(random: np.random.Generator, batch: int) -> Feeds:
    return {**several(random, batch), "queries": features(random, batch, 48, 64)}


ORIGINALS = (
    Entry(
        "PerceiverIO",
        LUCIDRAINS,
        partial(lucidrains, "perceiver_io", "PerceiverIO", **TRUNK, dim=32, queries_dim=32, logits_dim=100, depth=2),
        io_inputs,
        "the package's example: 256 latents of 512, 512 inputs and 128 queries of 32; 2 layers of 6",
        "a sequence and queries, random, padded",
        dynamic={"data": ("batch", "length", 32), "mask": ("batch", "length"), "queries": ("batch", "queries", 32)},
        ranges={"length": Range(1, 512, 1024), "queries": Range(1, 128, 1024)},
        installed=True,
    ),
    Entry(
        "PerceiverIO, tied",
        LUCIDRAINS,
        partial(
            lucidrains,
            "perceiver_io",
            "PerceiverIO",
            **TRUNK,
            dim=32,
            queries_dim=32,
            logits_dim=100,
            depth=6,
            weight_tie_layers=True,
        ),
        io_inputs,
        "the package's example with `weight_tie_layers`",
        "a sequence and queries, random, padded",
        dynamic={"data": ("batch", "length", 32), "mask": ("batch", "length"), "queries": ("batch", "queries", 32)},
        ranges={"length": Range(1, 512, 1024), "queries": Range(1, 128, 1024)},
        installed=True,
    ),
    Entry(
        "PerceiverLM",
        LUCIDRAINS,
        partial(
            lucidrains, "perceiver_io", "PerceiverLM", **TRUNK, num_tokens=20000, dim=32, depth=2, max_seq_len=2048
        ),
        texts(128),
        "the package's example: 20,000 tokens of 32, 256 latents of 512; 2 layers of 6, 128 of 2,048 positions",
        "bytes of texts",
        dynamic={"x": ("batch", "length")},
        ranges={"length": LENGTH},
        installed=True,
    ),
    Entry(
        "gated.Perceiver",
        LUCIDRAINS,
        partial(lucidrains, "gated", "Perceiver", **IMAGE),
        pictures(32),
        "the package's example: 256 latents of 512; 2 layers of 6, images of 32 x 32 for 224 x 224",
        "emoji pictures",
        installed=True,
    ),
    Entry(
        "mixed_latents.Perceiver",
        LUCIDRAINS,
        partial(lucidrains, "mixed_latents", "Perceiver", **IMAGE),
        pictures(32),
        "the package's example: 256 latents of 512; 2 layers of 6, images of 32 x 32 for 224 x 224",
        "emoji pictures",
        installed=True,
    ),
    Entry(
        "experimental.Perceiver",
        LUCIDRAINS,
        partial(lucidrains, "experimental", "Perceiver", **{**IMAGE, "input_channels": 32}, fourier_encode_data=False),
        normal(data=(16, 16, 32)),
        "the package's example: 256 latents of 512; 2 layers of 6, inputs of 16 x 16 x 32",
        "encoded pictures, random",
        note="without `fourier_encode_data`, whose width is wrong in this version",
        installed=True,
    ),
    Entry(
        "perceiver-io ImageClassifier (MNIST)",
        KRASSERM,
        mnist,
        pictures(28, 1, "x"),
        "as published (krasserm/perceiver-io-img-clf-mnist): 32 latents of 128, 2 cross-attentions, 3 blocks of 3",
        "Fashion-MNIST pictures",
        installed=True,
    ),
    Entry(
        "perceiver-io CausalLanguageModel",
        KRASSERM,
        partial(causal, "CausalLanguageModel", "text.clm.backend"),
        with_prefix,
        "published widths: 512, 8 heads; 4 layers of 8, 256 tokens of 4,096, 64 latents of 512",
        "bytes of texts",
        installed=True,
    ),
    Entry(
        "perceiver-io SymbolicAudioModel",
        KRASSERM,
        symbolic_audio,
        with_prefix,
        "4 layers of 8, width 512, 256 events of 6,144, 64 latents of 2,048",
        "bytes of texts for events",
        installed=True,
    ),
    Entry(
        "PerceiverModel with a text preprocessor and a class decoder",
        TRANSFORMERS,
        perceiver_model,
        text_and_mask,
        "64 latents of 512, 3 blocks of 2 layers",
        "bytes of texts, padded",
        installed=True,
    ),
    Entry(
        "MultiModalityPerceiver",
        "perceiver-multi-modality-pytorch==1.4.0",
        multi_modality,
        several,
        "the package's example: depth 4, 12 latents of 64; smaller pictures",
        "emoji pictures as image and video, random audio",
        dynamic=fixed(several),
        rows=1,
        note="its forward collects batch sizes in a set, which needs a fixed batch",
    ),
    Entry(
        "HierarchicalMultiModalityPerceiver",
        "perceiver-multi-modality-pytorch==1.4.0",
        hierarchical,
        several,
        "depth 3 from 32 latents of 64; smaller pictures",
        "emoji pictures as image and video, random audio",
        dynamic=fixed(several),
        rows=1,
        note="its forward collects batch sizes in a set, which needs a fixed batch",
    ),
    Entry(
        "MultiPerceiver",
        "perceiver-model==0.7.6",
        multi_perceiver,
        asked_for_several,
        "depth 4, 64 latents of 256, 48 queries",
        "emoji pictures as image and video, random audio and queries",
        dynamic=fixed(asked_for_several),
        rows=1,
        note="its forward collects batch sizes in a set, which needs a fixed batch",
    ),
)
