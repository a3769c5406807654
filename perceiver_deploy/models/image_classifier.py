"""Image classifiers: one model over the input adapters of the released three and the shipped one.

Jaegle et al. 2021, section 4.5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from perceiver_deploy.models.attention import initialise
from perceiver_deploy.models.patches import PatchClassifierConfig, PatchTokens
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_deploy.models.pixels import (
    ConvClassifierConfig,
    ConvPixels,
    FourierClassifierConfig,
    FourierPixels,
    LearnedClassifierConfig,
    LearnedPixels,
)

ImageClassifierConfig = LearnedClassifierConfig | FourierClassifierConfig | ConvClassifierConfig | PatchClassifierConfig

ADAPTERS: dict[type[Any], type[Any]] = {
    LearnedClassifierConfig: LearnedPixels,
    FourierClassifierConfig: FourierPixels,
    ConvClassifierConfig: ConvPixels,
    PatchClassifierConfig: PatchTokens,
}


class ImageClassifier(nn.Module):
    """Perceiver IO that answers one learned query per image: pixels (B, C, H, W) to logits (B, classes)."""

    def __init__(self, config: ImageClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = ADAPTERS[type(config)](config)
        self.perceiver = Perceiver(config.perceiver, self.tokens.dim, config.query_dim)
        self.query = nn.Parameter(torch.randn(1, config.query_dim) * 0.02)
        self.head = nn.Linear(config.query_dim, config.classes)
        initialise(self)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) to latents (B, N, D)."""
        return self.perceiver.encode(self.tokens(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) to logits (B, classes)."""
        logits: Tensor = self.head(self.perceiver.decode(self.query[None], latents)[:, 0])
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) to logits (B, classes)."""
        return self.decode(self.perceiver.process(self.encode(pixels)))
