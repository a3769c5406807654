"""The released image classifiers, which differ by their input adapter: `pixel_values` to `logits`, one fixed size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver_deploy.families.family import Family
from perceiver_deploy.families.parts import BATCH, Answer, Encoder, join, latents_spec, part, processor
from perceiver_deploy.models.image_classifier import ImageClassifier, ImageClassifierConfig
from perceiver_deploy.models.pixels import ConvClassifierConfig, FourierClassifierConfig, LearnedClassifierConfig
from perceiver_deploy.models.released import RELEASED
from perceiver_exporters.component import Cut
from perceiver_runtime.tensors import Array, TensorSpec


def cut(model: ImageClassifier) -> Cut:
    """Encoder, the processor block that the pipeline repeats, decoder."""
    config, perceiver = model.config, model.perceiver
    pixels = TensorSpec("pixel_values", "float32", ("batch", config.channels, config.height, config.width))
    latents = latents_spec(config.perceiver)
    logits = TensorSpec("logits", "float32", ("batch", config.classes))
    parts = [
        part("encoder", Encoder(model.tokens, perceiver), (pixels,), (latents,), "encode"),
        processor(perceiver.block, config.perceiver),
        part("decoder", Answer(perceiver, model.query, model.head), (latents,), (logits,), "decode"),
    ]
    return join(parts, (pixels,), (logits,), {"batch": BATCH})


def sample(config: ImageClassifierConfig, batch: int, random: np.random.Generator) -> Mapping[str, Array]:
    """Standard-normal pixels."""
    shape = (batch, config.channels, config.height, config.width)
    return {"pixel_values": random.standard_normal(shape, dtype=np.float32)}


def _family(kind: str, config: type[Any], summary: str) -> Family:
    preset = f"vision-perceiver-{kind}"
    return Family(
        name=f"image-classifier-{kind}",
        summary=f"a class for an image, from {summary}",
        config=config,
        build=ImageClassifier,
        cut=cut,
        sample=sample,
        presets={preset: RELEASED[preset]},
    )


IMAGE_CLASSIFIERS = (
    _family("learned", LearnedClassifierConfig, "projected pixels and learned positions"),
    _family("fourier", FourierClassifierConfig, "raw pixels and Fourier positions"),
    _family("conv", ConvClassifierConfig, "convolved pixels and Fourier positions"),
)
