"""Image classifiers: encoder (pixels to latents), shared processor block, decoder (latents to logits)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from perceiver_deploy.families.family import Family
from perceiver_deploy.models.image import PatchClassifier, PatchClassifierConfig
from perceiver_exporters.component import Component, Cut
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec


class Encoder(nn.Module):
    """`pixel_values` (B, C, H, W) to `latents` (B, N, D)."""

    def __init__(self, model: PatchClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Input adapter and cross-attention."""
        return self.model.encode(pixel_values)


class Decoder(nn.Module):
    """`latents` (B, N, D) to `logits` (B, classes)."""

    def __init__(self, model: PatchClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> Tensor:
        """Cross-attention from the learned query, and the class head."""
        return self.model.decode(latents)


def cut(model: PatchClassifier) -> Cut:
    """Three components; the processor block is one graph that the pipeline repeats."""
    config = model.config
    latent_shape = ("batch", config.perceiver.latents, config.perceiver.latent_dim)
    pixels = TensorSpec("pixel_values", "float32", ("batch", config.channels, config.height, config.width))
    latents = TensorSpec("latents", "float32", latent_shape)
    refined = TensorSpec("latents_out", "float32", latent_shape)
    logits = TensorSpec("logits", "float32", ("batch", config.classes))
    components = (
        Component("encoder", Encoder(model), (pixels,), (latents,)),
        Component("processor_block", model.perceiver.block, (latents,), (refined,)),
        Component("decoder", Decoder(model), (latents,), (logits,)),
    )
    steps = (
        Step("encoder", {"pixel_values": "pixel_values"}, {"latents": "latents"}, "encode"),
        Step(
            "processor_block",
            {"latents": "latents"},
            {"latents_out": "latents"},
            "encode",
            repeat=config.perceiver.processor.blocks,
            carry={"latents_out": "latents"},
        ),
        Step("decoder", {"latents": "latents"}, {"logits": "logits"}, "decode"),
    )
    return Cut(components, Pipeline((pixels,), (logits,), steps), Profile("default", {"batch": Range(1, 1, 64)}))


def sample(config: PatchClassifierConfig, batch: int, random: np.random.Generator) -> Mapping[str, Array]:
    """Standard-normal pixels."""
    shape = (batch, config.channels, config.height, config.width)
    return {"pixel_values": random.standard_normal(shape, dtype=np.float32)}


PATCH_CLASSIFIER = Family(
    name="patch-classifier",
    summary="image classification from convolutional patches, one learned query",
    config=PatchClassifierConfig,
    build=PatchClassifier,
    cut=cut,
    sample=sample,
)
