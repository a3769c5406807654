"""Other implementations, autoregressive models, and neighbours of Perceivers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_runtime.tensors import Range
from wild.catalogue.connectors import aurora_alone
from wild.entry import Entry, Feeds, absent, features, fixed, normal, pending, pictures, texts, without_init

AURORA = "microsoft-aurora==2.0.1"
SURFACE, ATMOSPHERE, STATIC = ("2t", "10u", "10v", "msl"), ("z", "u", "v", "t", "q"), ("lsm", "z", "slt")
LEVELS = (50, 250, 500, 850, 1000)
GRID = (32, 64)


def esceptico() -> nn.Module:
    encoder = pending("perceiver_io.encoder", "PerceiverEncoder")(num_latents=64, latent_dim=256, input_dim=64)
    decoder = pending("perceiver_io.decoders", "PerceiverDecoder")(256, 64, projection_dim=10, num_heads=1)
    return pending("perceiver_io.perceiver", "PerceiverIO")(encoder, decoder)


def gperc(kind: str, **arguments: Any) -> nn.Module:
    without_init("gperc")
    config = pending("gperc.configs", kind)(**arguments)
    return pending("gperc.models", "Perceiver")(config)


def gperc_image() -> nn.Module:
    return gperc("ImageConfig", image_shape=[32, 32, 3], latent_len=32, latent_dim=32, n_classes=10)


def gperc_text() -> nn.Module:
    return gperc("TextConfig", latent_dim=32, vocab_size=262, max_len=128, latent_frac=0.15)


def flat_pictures(random: np.random.Generator, batch: int) -> Feeds:
    return {"input_array": pictures(32, name="x")(random, batch)["x"].reshape(batch, 1024, 3)}


def perceiver_ar() -> nn.Module:
    return pending("perceiver_ar_pytorch", "PerceiverAR")(
        num_tokens=20000, dim=512, depth=4, dim_head=64, heads=8, max_seq_len=512, cross_attn_seq_len=192
    )


def flash(package: str) -> nn.Module:
    return pending(package, "PerceiverIO")(
        input_dim=32, query_dim=32, depth=1, num_latents=256, latent_dim=512, use_flash_attn=False
    )


def token_learner() -> nn.Module:
    absent("open_clip")
    return pending("robotic_transformer_pytorch.robotic_transformer_pytorch", "TokenLearner")(dim=768)


def rt1() -> nn.Module:
    absent("open_clip")
    place = "robotic_transformer_pytorch.robotic_transformer_pytorch"
    vit = pending(place, "MaxViT")(num_classes=1000, dim_conv_stem=64, dim=96, dim_head=32, depth=(2, 2, 5, 2))
    return pending(place, "RT1")(vit=vit, num_actions=11, depth=6, heads=8, dim_head=64)


def attention_pool() -> nn.Module:
    return pending("x_transformers.x_transformers", "AttentionPool")(dim=512, num_pooled_tokens=32, depth=2)


def latent_decoder() -> nn.Module:
    place = "x_transformers.x_transformers"
    layers = pending(place, "Decoder")(dim=512, depth=4, heads=8)
    net = pending(place, "TransformerWrapper")(num_tokens=256, max_seq_len=256, attn_layers=layers)
    return pending("x_transformers.xm_latent_decoder", "XMLatentDecoder")(net, num_latents=4)


class Weather(nn.Module):
    """Aurora's encoder or decoder on tensors by name: the package puts them into a `Batch` with a date and a grid."""

    def __init__(self, part: nn.Module, decodes: bool) -> None:
        super().__init__()
        self.part, self.decodes = part, decodes
        self.register_buffer("lat", torch.linspace(90, -90, GRID[0]), persistent=False)
        self.register_buffer("lon", torch.linspace(0, 360, GRID[1] + 1)[:-1], persistent=False)

    def forward(self, surface: Tensor, static: Tensor, atmosphere: Tensor, latents: Tensor | None = None) -> Any:
        """Surface (B, T, V, H, W), static (V, H, W) and atmospheric variables (B, T, V, levels, H, W)."""
        from datetime import datetime

        from aurora.batch import Batch, Metadata

        rows, steps = surface.shape[:2]
        where = Metadata(self.lat, self.lon, (datetime(2020, 1, 1, 12),) * rows, LEVELS)
        batch = Batch(
            {name: surface[:, :, i] for i, name in enumerate(SURFACE)},
            {name: static[i].expand(rows, steps, -1, -1) for i, name in enumerate(STATIC)},
            {name: atmosphere[:, :, i] for i, name in enumerate(ATMOSPHERE)},
            where,
        )
        if not self.decodes:
            return self.part(batch, torch.full((rows,), 6.0))
        made = self.part(latents, batch, (4, GRID[0] // 4, GRID[1] // 4), (6.0,) * rows)
        return made.surf_vars, made.atmos_vars


def aurora(decodes: bool) -> nn.Module:
    aurora_alone()
    sizes: Mapping[str, Any] = {"embed_dim": 256, "num_heads": 8}
    if decodes:
        return Weather(pending("aurora.model.decoder", "Perceiver3DDecoder")(SURFACE, ATMOSPHERE, **sizes), True)
    kind = pending("aurora.model.encoder", "Perceiver3DEncoder")
    return Weather(kind(SURFACE, STATIC, ATMOSPHERE, latent_levels=4, **sizes), False)


def weather(random: np.random.Generator, batch: int) -> Feeds:
    def drawn(*shape: int) -> Any:
        return random.standard_normal(shape, dtype=np.float32)

    return {
        "surface": drawn(batch, 2, len(SURFACE), *GRID),
        "static": np.random.default_rng(0).standard_normal((len(STATIC), *GRID), dtype=np.float32),
        "atmosphere": drawn(batch, 2, len(ATMOSPHERE), len(LEVELS), *GRID),
    }


def weather_and_latents(random: np.random.Generator, batch: int) -> Feeds:
    tokens = 4 * GRID[0] * GRID[1] // 16
    return {**weather(random, batch), "latents": features(random, batch, tokens, 256)}


OTHERS = (
    Entry(
        "Aurora Perceiver3DEncoder",
        AURORA,
        lambda: aurora(False),
        weather,
        "AuroraSmall's: width 256, 8 heads, 4 latent levels; 5 levels of 13, a grid of 32 x 64 for 721 x 1440",
        "fields, random",
        requires=("timm==1.0.31",),
        dynamic=fixed(weather),
        rows=1,
    ),
    Entry(
        "Aurora Perceiver3DDecoder",
        AURORA,
        lambda: aurora(True),
        weather_and_latents,
        "AuroraSmall's: width 256, 8 heads; 5 levels of 13, a grid of 32 x 64 for 721 x 1440",
        "latents, random",
        requires=("timm==1.0.31",),
        dynamic=fixed(weather_and_latents),
        rows=1,
    ),
    Entry(
        "perceiver-ar-pytorch PerceiverAR",
        "perceiver-ar-pytorch==0.0.10",
        perceiver_ar,
        texts(256),
        "the package's example: 20,000 tokens of 512; 4 layers of 8, 256 tokens of 4,096",
        "bytes of texts",
    ),
    Entry(
        "perceiver-io-pytorch PerceiverIO",
        "perceiver-io-pytorch==0.1.5",
        esceptico,
        normal(inputs=(256, 64), query=(32, 64)),
        "defaults: 4 blocks of 2 layers; 64 latents of 256",
        "a sequence and queries, random",
        dynamic={"inputs": ("batch", "length", 64), "query": ("batch", "queries", 64)},
        ranges={"length": Range(1, 256, 1024), "queries": Range(1, 32, 256)},
    ),
    Entry(
        "gperc PerceiverImage",
        "gperc==0.7",
        gperc_image,
        flat_pictures,
        "the package's CIFAR-10 example: 32 latents of 32",
        "emoji pictures",
        dynamic=fixed(flat_pictures),
        rows=1,
        note="its forward loops over the batch",
    ),
    Entry(
        "gperc PerceiverMLM",
        "gperc==0.7",
        gperc_text,
        texts(128, "input_array"),
        "the package's language model at width 32, 128 bytes",
        "bytes of texts",
        dynamic={"input_array": (1, 128)},
        rows=1,
        note="its forward loops over the batch; without `attention_mask`, whose values it branches on",
    ),
    Entry(
        "fast-perceiver PerceiverIO",
        "fast-perceiver==0.1.7",
        lambda: flash("fast_perceiver"),
        normal(data=(256, 32), queries=(32, 32)),
        "its defaults",
        "a sequence and queries, random",
    ),
    Entry(
        "flash-perceiver PerceiverIO",
        "flash-perceiver==0.2.0",
        lambda: flash("flash_perceiver"),
        normal(data=(256, 32), queries=(32, 32)),
        "its defaults",
        "a sequence and queries, random",
    ),
    Entry(
        "RT-1 TokenLearner",
        "robotic-transformer-pytorch==0.2.3",
        token_learner,
        normal(x=(768, 7, 7)),
        "RT-1's: width 768, 8 tokens of 7 x 7",
        "image features, random",
        requires=("classifier-free-guidance-pytorch==0.7.1", "beartype", "environs", "ftfy", "open-clip-torch"),
    ),
    Entry(
        "RT-1",
        "robotic-transformer-pytorch==0.2.3",
        rt1,
        normal(video=(3, 6, 224, 224), text_embeds=(768,)),
        "the package's example",
        "video and text, random",
        requires=("classifier-free-guidance-pytorch==0.7.1", "beartype", "environs", "ftfy", "open-clip-torch"),
    ),
    Entry(
        "x-transformers AttentionPool",
        "x-transformers==2.31.0",
        attention_pool,
        normal(context=(256, 512)),
        "width 512, 32 pooled tokens, 2 layers, 8 heads of 64",
        "features, random",
        requires=("einx", "torch-einops-utils", "loguru", "frozendict"),
        dynamic={"context": ("batch", "tokens", 512)},
        ranges={"tokens": Range(1, 256, 1024)},
    ),
    Entry(
        "x-transformers XMLatentDecoder",
        "x-transformers==2.31.0",
        latent_decoder,
        texts(128, "seq"),
        "width 512, 4 layers, 4 latents",
        "bytes of texts",
        requires=("einx", "torch-einops-utils", "loguru", "frozendict"),
    ),
)
