"""Image classifiers with different input adapters: `pixel_values` of one fixed size to `logits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver_deploy.families.components import (
    BATCH,
    ClassDecoder,
    Encoder,
    component,
    latents_spec,
    make_cut,
    processor,
)
from perceiver_deploy.families.family import Family
from perceiver_deploy.models.image_classifier import ImageClassifier, ImageClassifierConfig
from perceiver_deploy.models.patches import PatchClassifierConfig
from perceiver_deploy.models.pixels import ConvClassifierConfig, FourierClassifierConfig, LearnedClassifierConfig
from perceiver_deploy.models.released import RELEASED
from perceiver_exporters.component import Cut
from perceiver_runtime.processing.image import ImageConfig
from perceiver_runtime.settings import Processing
from perceiver_runtime.tensors import Array, TensorSpec


def cut(model: ImageClassifier) -> Cut:
    """Encoder, the processor block that the pipeline repeats, decoder."""
    config, perceiver = model.config, model.perceiver
    pixels = TensorSpec("pixel_values", "float32", ("batch", config.channels, config.height, config.width))
    latents = latents_spec(config.perceiver)
    logits = TensorSpec("logits", "float32", ("batch", config.classes))
    parts = [
        component("encoder", Encoder(model.tokens, perceiver), (pixels,), (latents,), "encode"),
        processor(perceiver.block, config.perceiver),
        component("decoder", ClassDecoder(perceiver, model.query, model.head), (latents,), (logits,), "decode"),
    ]
    return make_cut(parts, (pixels,), (logits,), {"batch": BATCH})


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
    _family(
        "image-classifier-conv", ConvClassifierConfig, "convolved pixels and Fourier positions", "vision-perceiver-conv"
    ),
)
