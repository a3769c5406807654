"""Image classifiers: one model over the input adapters of the released three and the shipped one.

Jaegle et al. 2021, section 4.5. The classifier of krasserm's perceiver-io may read its image repeatedly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from perceiver_deploy.models.attention import CrossAttentionLayer, ProcessorBlock, initialise
from perceiver_deploy.models.patches import PatchClassifierConfig, PatchTokens
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_deploy.models.pixels import (
    ConvClassifierConfig,
    ConvPixels,
    FourierClassifierConfig,
    FourierPixels,
    LearnedClassifierConfig,
    LearnedPixels,
    RepeatedClassifierConfig,
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


class Stage(nn.Module):
    """One reading of the tokens and one block: latents (B, N, D) and tokens (B, M, C) to latents."""

    def __init__(self, reader: CrossAttentionLayer, block: ProcessorBlock) -> None:
        super().__init__()
        self.reader, self.block = reader, block

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Cross-attention, then self-attention."""
        refined: Tensor = self.block(self.reader(latents, tokens))
        return refined


class RepeatedClassifier(nn.Module):
    """A Perceiver IO that reads its tokens several times: pixels (B, C, H, W) to logits (B, classes).

    `readers` and `blocks` hold one layer or block if all share their weights, else the first and that of later stages.
    """

    def __init__(self, config: RepeatedClassifierConfig) -> None:
        super().__init__()
        trunk = config.perceiver
        if config.readings > trunk.processor.blocks:
            raise ValueError(f"expected at most as many readings as blocks, {trunk.processor.blocks}")
        self.config = config
        self.tokens = FourierPixels(config)
        self.latents = nn.Parameter(torch.randn(trunk.latents, trunk.latent_dim) * 0.02)
        readers = 2 if config.own_first_reading and config.readings > 1 else 1
        blocks = 2 if config.own_first_block and trunk.processor.blocks > 1 else 1
        self.readers = nn.ModuleList(
            CrossAttentionLayer(trunk.latent_dim, self.tokens.dim, trunk.encoder) for _ in range(readers)
        )
        self.blocks = nn.ModuleList(ProcessorBlock(trunk.latent_dim, trunk.processor) for _ in range(blocks))
        self.decoder = CrossAttentionLayer(config.query_dim, trunk.latent_dim, trunk.decoder)
        self.query = nn.Parameter(torch.randn(1, config.query_dim) * 0.02)
        self.head = nn.Linear(config.query_dim, config.classes)
        initialise(self)

    def stage(self) -> Stage:
        """A stage after the first, with the weights that all of them share."""
        return Stage(self.readers[-1], self.blocks[-1])  # type: ignore[arg-type]

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) to logits (B, classes)."""
        tokens = self.tokens(pixels)
        latents = self.blocks[0](self.readers[0](self.latents.expand(len(tokens), -1, -1), tokens))
        for i in range(1, self.config.perceiver.processor.blocks):
            if i < self.config.readings:
                latents = self.readers[-1](latents, tokens)
            latents = self.blocks[-1](latents)
        logits: Tensor = self.head(self.decoder(self.query[None], latents)[:, 0])
        return logits
