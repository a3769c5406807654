"""Image classifiers with different input adapters: `pixel_values` of one fixed size to `logits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from perceiver_deploy.families.components import (
    BATCH,
    ClassDecoder,
    Encoder,
    component,
    latents_spec,
    make_cut,
    processor,
    repeated,
)
from perceiver_deploy.families.family import Family
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.image_classifier import ImageClassifier, ImageClassifierConfig, RepeatedClassifier
from perceiver_deploy.models.patches import PatchClassifierConfig
from perceiver_deploy.models.pixels import (
    ConvClassifierConfig,
    FourierClassifierConfig,
    LearnedClassifierConfig,
    RepeatedClassifierConfig,
)
from perceiver_deploy.models.released import RELEASED
from perceiver_exporters.component import Cut
from perceiver_runtime.processing.image import ImageConfig
from perceiver_runtime.settings import Processing
from perceiver_runtime.tensors import Array, TensorSpec


def cut(model: ImageClassifier) -> Cut:
    """Encoder, the processor block that the pipeline repeats, decoder."""
    config, perceiver = model.config, model.perceiver
    pixels, logits = _pixels(config), _logits(config)
    latents = latents_spec(config.perceiver)
    parts = [
        component("encoder", Encoder(model.tokens, perceiver), (pixels,), (latents,), "encode"),
        processor(perceiver.block, config.perceiver),
        component("decoder", ClassDecoder(perceiver.decoder, model.query, model.head), (latents,), (logits,), "decode"),
    ]
    return make_cut(parts, (pixels,), (logits,), {"batch": BATCH})


class FirstReading(nn.Module):
    """Pixels (B, C, H, W) to tokens (B, M, C) and the latents (B, N, D) after the first reading."""

    def __init__(self, model: RepeatedClassifier) -> None:
        super().__init__()
        self.tokens, self.initial, self.layer = model.tokens, model.latents, model.readers[0]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Input adapter and cross-attention."""
        tokens = self.tokens(pixels)
        return tokens, self.layer(self.initial.expand(tokens.shape[0], -1, -1), tokens)


def cut_repeated(model: RepeatedClassifier) -> Cut:
    """Encoder, first block, the stages that read again, the blocks that don't, decoder."""
    config = model.config
    pixels, logits = _pixels(config), _logits(config)
    tokens = TensorSpec("tokens", "float32", ("batch", config.height * config.width, model.tokens.dim))
    latents = latents_spec(config.perceiver)
    again, rest = config.readings - 1, config.perceiver.processor.blocks - config.readings
    parts = [
        component("encoder", FirstReading(model), (pixels,), (tokens, latents), "encode"),
        repeated("first_block", model.blocks[0], latents, (), 1),
        *([repeated("stage", model.stage(), latents, (tokens,), again)] if again else []),
        *([repeated("processor_block", model.blocks[-1], latents, (), rest)] if rest else []),
        component("decoder", ClassDecoder(model.decoder, model.query, model.head), (latents,), (logits,), "decode"),
    ]
    return make_cut(parts, (pixels,), (logits,), {"batch": BATCH})


def _pixels(config: ImageClassifierConfig) -> TensorSpec:
    return TensorSpec("pixel_values", "float32", ("batch", config.channels, config.height, config.width))


def _logits(config: ImageClassifierConfig) -> TensorSpec:
    return TensorSpec("logits", "float32", ("batch", config.classes))


def sample(config: ImageClassifierConfig, batch: int, random: np.random.Generator) -> Mapping[str, Array]:
    """Standard-normal pixels."""
    shape = (batch, config.channels, config.height, config.width)
    return {"pixel_values": random.standard_normal(shape, dtype=np.float32)}


def processing(config: ImageClassifierConfig) -> Processing:
    """That of the released models: centre crop, bicubic resize, ImageNet's mean and deviation."""
    settings = ImageConfig(height=config.height, width=config.width).settings
    return Processing(image=settings, origin="the released models")


def _family(name: str, config: type[Any], summary: str, *presets: str) -> Family:
    return Family(
        name=name,
        summary=f"a class for an image, from {summary}",
        config=config,
        build=ImageClassifier,
        cut=cut,
        sample=sample,
        presets={preset: RELEASED[preset] for preset in presets},
        processing=processing if presets else None,
    )


_MNIST_TRUNK = PerceiverConfig(
    latents=32,
    latent_dim=128,
    encoder=CrossAttentionConfig(heads=1, qk_dim=131, v_dim=131),
    processor=ProcessorConfig(blocks=3, layers=3, heads=8),
    decoder=CrossAttentionConfig(heads=1, qk_dim=128, v_dim=128),
)
MNIST = RepeatedClassifierConfig(
    1, 28, 28, 32, (28, 28), 128, 10, _MNIST_TRUNK, readings=2, own_first_reading=True, own_first_block=True
)
"""The example of krasserm's perceiver-io."""

IMAGE_CLASSIFIERS = (
    _family("patch-classifier", PatchClassifierConfig, "convolved patches and Fourier positions"),
    _family(
        "image-classifier-learned",
        LearnedClassifierConfig,
        "projected pixels and learned positions",
        "vision-perceiver-learned",
    ),
    _family(
        "image-classifier-fourier",
        FourierClassifierConfig,
        "raw pixels and Fourier positions",
        "vision-perceiver-fourier",
    ),
    Family(
        name="image-classifier-repeated",
        summary="a class for an image, from raw pixels and Fourier positions that are read several times",
        config=RepeatedClassifierConfig,
        build=RepeatedClassifier,
        cut=cut_repeated,
        sample=sample,
        presets={"perceiver-io-mnist": MNIST},
    ),
    _family(
        "image-classifier-conv", ConvClassifierConfig, "convolved pixels and Fourier positions", "vision-perceiver-conv"
    ),
)
