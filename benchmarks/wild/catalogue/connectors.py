"""Resamplers and Q-Formers: few latents read the features of an image, a video, speech, a protein or the weather."""

from __future__ import annotations

import sys
import types

import numpy as np
from torch import nn

from perceiver_runtime.tensors import Range
from wild.entry import Entry, Feeds, absent, features, mask, normal, pending, without_init

TOKENS = Range(1, 64, 1024)
"""Numbers of features that a resampler takes; 64 are drawn."""


def edgetam() -> nn.Module:
    models = "transformers.models.edgetam_video"
    config = pending(f"{models}.configuration_edgetam_video", "EdgeTamVideoConfig")()
    config._attn_implementation = "sdpa"
    return pending(f"{models}.modeling_edgetam_video", "EdgeTamVideoPerceiverResampler")(config)


def idefics2() -> nn.Module:
    models = "transformers.models.idefics2"
    config = pending(f"{models}.configuration_idefics2", "Idefics2PerceiverConfig")(hidden_size=768)
    config._attn_implementation = "sdpa"
    return pending(f"{models}.modeling_idefics2", "Idefics2PerceiverResampler")(config)


def masked_features(length: int, width: int, name: str, kept: str, dtype: str = "int64"):
    def draw(random: np.random.Generator, batch: int) -> Feeds:
        values = features(random, batch, length, width)
        return {name: values, kept: mask(random, batch, length).astype(dtype)}

    return draw


def idefics() -> nn.Module:
    config = pending("transformers", "IdeficsConfig")()
    config.vision_config.embed_dim = 1280
    return pending("transformers.models.idefics.perceiver", "IdeficsPerceiverResampler")(config, 1280, 2, 16, 96, 64)


def evolla() -> nn.Module:
    config = pending("transformers", "EvollaConfig")(resampler_depth=2, hidden_size=1024)
    config.protein_encoder_config.hidden_size = 1280
    return pending("transformers.models.evolla.modeling_evolla", "EvollaSequenceCompressorResampler")(config)


def blip2() -> nn.Module:
    config = pending("transformers", "Blip2QFormerConfig")(num_hidden_layers=2)
    return pending("transformers", "Blip2QFormerModel")(config)


def instruct_blip() -> nn.Module:
    config = pending("transformers", "InstructBlipQFormerConfig")(num_hidden_layers=2)
    return pending("transformers", "InstructBlipQFormerModel")(config)


def instruct_blip_inputs(random: np.random.Generator, batch: int) -> Feeds:
    return {
        "input_ids": random.integers(1000, 30000, (batch, 32)),
        "query_embeds": features(random, batch, 32, 768),
        "encoder_hidden_states": features(random, batch, 64, 1408),
    }


def open_flamingo() -> nn.Module:
    without_init("open_flamingo", "open_flamingo.src")
    return pending("open_flamingo.src.helpers", "PerceiverResampler")(dim=1024, depth=2)


def flamingo() -> nn.Module:
    return pending("flamingo_pytorch", "PerceiverResampler")(
        dim=1024, depth=2, dim_head=64, heads=8, num_latents=64, num_media_embeds=4
    )


def xtts() -> nn.Module:
    without_init("TTS", "TTS.tts", "TTS.tts.layers", "TTS.tts.layers.xtts", "TTS.tts.layers.tortoise", "TTS.utils")
    absent("coqpit", "trainer", "trainer.io", "torchaudio")
    return pending("TTS.tts.layers.xtts.perceiver_encoder", "PerceiverResampler")(
        dim=1024, depth=2, dim_context=1024, num_latents=32, dim_head=64, heads=8, ff_mult=4, use_flash_attn=False
    )


def aurora_alone() -> None:
    """Aurora's layers without its data, and timm without torchvision."""
    absent("torchvision", "torchvision.ops", "torchvision.ops.misc")
    without_init("aurora", "aurora.model", "timm", "timm.models")
    stub = types.ModuleType("timm.models.vision_transformer")
    stub.trunc_normal_ = pending("timm.layers", "trunc_normal_")  # type: ignore[attr-defined]
    sys.modules.setdefault("timm.models.vision_transformer", stub)


def aurora_resampler() -> nn.Module:
    aurora_alone()
    return pending("aurora.model.perceiver", "PerceiverResampler")(
        latent_dim=512, context_dim=512, depth=2, head_dim=64, num_heads=16, ln_k_q=True
    )


TRANSFORMERS = "transformers==5.23.0"
AURORA = "microsoft-aurora==2.0.1"

CONNECTORS = (
    Entry(
        "EdgeTamVideoPerceiverResampler",
        TRANSFORMERS,
        edgetam,
        normal(hidden_states=(64, 64, 64), positional_encoding=(64, 64, 64)),
        "as published: 2 layers, width 64, 256 + 256 latents, 64 x 64 memory",
        "memory features and positions, random",
        dynamic={"hidden_states": (1, 64, 64, 64), "positional_encoding": (1, 64, 64, 64)},
        rows=1,
        note="its forward takes one row: it views latents that were expanded along the batch",
        installed=True,
    ),
    Entry(
        "Idefics2PerceiverResampler",
        TRANSFORMERS,
        idefics2,
        masked_features(64, 768, "context", "attention_mask"),
        "64 features; published but for the width, 768 of 4096: 3 layers, 64 latents, 16 heads of 96",
        "image features, random, padded",
        dynamic={"context": ("batch", "tokens", 768), "attention_mask": ("batch", "tokens")},
        ranges={"tokens": TOKENS},
        installed=True,
    ),
    Entry(
        "IdeficsPerceiverResampler",
        TRANSFORMERS,
        idefics,
        normal(context=(64, 1280)),
        "64 features; published widths: 1280, 64 latents, 16 heads of 96; 2 layers of 6",
        "image features, random",
        dynamic={"context": ("batch", "tokens", 1280)},
        ranges={"tokens": TOKENS},
        installed=True,
    ),
    Entry(
        "EvollaSequenceCompressorResampler",
        TRANSFORMERS,
        evolla,
        masked_features(64, 1280, "embeds", "mask", "float32"),
        "64 features; published widths: 1280, 64 latents, 8 heads of 64; 2 layers of 6, output 1024 of 4096",
        "protein features, random, padded",
        dynamic={"embeds": ("batch", "tokens", 1280), "mask": ("batch", "tokens")},
        ranges={"tokens": TOKENS},
        installed=True,
    ),
    Entry(
        "Blip2QFormerModel",
        TRANSFORMERS,
        blip2,
        normal(query_embeds=(32, 768), encoder_hidden_states=(64, 1408)),
        "64 features; published widths: 768, 32 queries, 12 heads; 2 layers of 12",
        "image features and queries, random",
        dynamic={"query_embeds": ("batch", 32, 768), "encoder_hidden_states": ("batch", "tokens", 1408)},
        ranges={"tokens": TOKENS},
        installed=True,
    ),
    Entry(
        "InstructBlipQFormerModel",
        TRANSFORMERS,
        instruct_blip,
        instruct_blip_inputs,
        "64 features; published widths: 768, 32 queries, 12 heads; 2 layers of 12",
        "ids, queries and image features, random",
        installed=True,
    ),
    Entry(
        "open-flamingo PerceiverResampler",
        "open-flamingo==2.0.1",
        open_flamingo,
        normal(x=(1, 1, 64, 1024)),
        "64 features; published widths: 1024 (ViT-L/14), 64 latents, 8 heads of 64; 2 layers of 6",
        "image features, random",
        requires=("einops-exts==0.0.4",),
        dynamic={"x": ("batch", 1, 1, "tokens", 1024)},
        ranges={"tokens": TOKENS},
    ),
    Entry(
        "flamingo-pytorch PerceiverResampler",
        "flamingo-pytorch==0.1.2",
        flamingo,
        normal(x=(2, 64, 1024)),
        "64 features; the package's example: 2 layers, width 1024, 64 latents",
        "image features, random",
        requires=("einops-exts==0.0.4",),
        dynamic={"x": ("batch", 2, "tokens", 1024)},
        ranges={"tokens": TOKENS},
    ),
    Entry(
        "XTTS PerceiverResampler",
        "coqui-tts==0.28.0",
        xtts,
        normal(x=(64, 1024)),
        "64 features; as published: 2 layers, width 1024, 32 latents, 8 heads of 64",
        "speech features, random",
        dynamic={"x": ("batch", "tokens", 1024)},
        ranges={"tokens": TOKENS},
    ),
    Entry(
        "Aurora PerceiverResampler",
        AURORA,
        aurora_resampler,
        normal(latents=(3, 512), x=(13, 512)),
        "Aurora's: 2 layers, 16 heads of 64, width 512; 3 latents for 13 pressure levels",
        "levels of the atmosphere, random",
        requires=("timm==1.0.31",),
    ),
)
