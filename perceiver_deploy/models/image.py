"""Image classification: pixels to tokens by a patch convolution, one learned query out (Jaegle et al. 2021, 4.5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_deploy.models.attention import initialise
from perceiver_deploy.models.config import PerceiverConfig
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_deploy.models.positions import fourier_dim, fourier_features, grid


@dataclass(frozen=True)
class PatchClassifierConfig:
    """Images (C, H, W) cut by a convolution of `patch` pixels every `stride` pixels into tokens of `token_dim`."""

    channels: int
    height: int
    width: int
    patch: int
    stride: int
    token_dim: int
    bands: int
    query_dim: int
    classes: int
    perceiver: PerceiverConfig

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return tuple((n - self.patch) // self.stride + 1 for n in (self.height, self.width))  # type: ignore[return-value]


class PatchTokens(nn.Module):
    """Input adapter: pixels (B, C, H, W) to tokens with Fourier positions (B, M, token_dim + position_dim)."""

    positions: Tensor

    def __init__(self, config: PatchClassifierConfig) -> None:
        super().__init__()
        self.project = nn.Conv2d(config.channels, config.token_dim, config.patch, config.stride)
        table = fourier_features(grid(config.grid), config.grid, config.bands)
        self.register_buffer("positions", table, persistent=False)
        self.dim = config.token_dim + fourier_dim(2, config.bands)

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens of pixels (B, C, H, W), row major."""
        tokens = self.project(pixels).flatten(2).transpose(1, 2)
        return torch.cat([tokens, self.positions.expand(tokens.shape[0], -1, -1)], dim=-1)


class PatchClassifier(nn.Module):
    """Perceiver IO that answers one learned query per image: pixels (B, C, H, W) to logits (B, classes)."""

    def __init__(self, config: PatchClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = PatchTokens(config)
        self.perceiver = Perceiver(config.perceiver, self.tokens.dim, config.query_dim)
        self.query = nn.Parameter(torch.randn(1, config.query_dim) * 0.02)
        self.head = nn.Linear(config.query_dim, config.classes)
        initialise(self)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) to latents (B, N, D)."""
        return self.perceiver.encode(self.tokens(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) to logits (B, classes)."""
        queries = self.query.expand(latents.shape[0], -1, -1)
        logits: Tensor = self.head(self.perceiver.decode(queries, latents)[:, 0])
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) to logits (B, classes)."""
        return self.decode(self.perceiver.process(self.encode(pixels)))
