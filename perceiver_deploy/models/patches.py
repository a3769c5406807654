"""Image input adapter of the shipped classifier: a patch convolution beside Fourier positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_deploy.models.config import PerceiverConfig
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
