"""Image input adapters of the released classifiers (Jaegle et al. 2021, section 4.5 and appendix H).

All turn pixels (B, C, H, W) into tokens (B, M, dim), row major, content first and position last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_deploy.models.config import PerceiverConfig
from perceiver_deploy.models.positions import GridPositions


@dataclass(frozen=True)
class LearnedClassifierConfig:
    """Images (C, H, W): every pixel projected to `pixel_dim`, beside a learned position of `position_dim`."""

    channels: int
    height: int
    width: int
    pixel_dim: int
    position_dim: int
    query_dim: int
    classes: int
    perceiver: PerceiverConfig


@dataclass(frozen=True)
class FourierClassifierConfig:
    """Images (C, H, W) of raw pixels beside Fourier positions of `bands` up to `resolution` / 2 per axis."""

    channels: int
    height: int
    width: int
    bands: int
    resolution: tuple[int, ...]
    query_dim: int
    classes: int
    perceiver: PerceiverConfig


@dataclass(frozen=True)
class RepeatedClassifierConfig(FourierClassifierConfig):
    """A classifier that reads its image before each of the first `readings` of its `perceiver.processor.blocks`.

    `own_first_reading` and `own_first_block` give the first cross-attention and block weights that later ones don't
    share.
    """

    readings: int = 1
    own_first_reading: bool = True
    own_first_block: bool = False


@dataclass(frozen=True)
class ConvClassifierConfig:
    """Images (C, H, W) convolved to `conv_dim` maps of a quarter of the size, beside Fourier positions."""

    channels: int
    height: int
    width: int
    conv_dim: int
    bands: int
    resolution: tuple[int, ...]
    query_dim: int
    classes: int
    perceiver: PerceiverConfig

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns of tokens: a stride of 2 with padding 3, then pooling 3 by 2 without."""
        return tuple(((n - 1) // 2 + 1 - 3) // 2 + 1 for n in (self.height, self.width))


def rows(pixels: Tensor) -> Tensor:
    """Maps (B, C, H, W) to tokens (B, H * W, C)."""
    return pixels.flatten(2).transpose(1, 2)


def with_positions(tokens: Tensor, positions: Tensor) -> Tensor:
    """Tokens (B, M, C) and positions (M, P) side by side: (B, M, C + P)."""
    return torch.cat([tokens, positions.expand(tokens.shape[0], -1, -1)], dim=-1)


class LearnedPixels(nn.Module):
    """A linear layer on every pixel, beside a projected learned position: nothing tells the model about 2D."""

    def __init__(self, config: LearnedClassifierConfig) -> None:
        super().__init__()
        self.project = nn.Conv2d(config.channels, config.pixel_dim, 1)
        self.positions = nn.Parameter(torch.randn(config.height * config.width, config.position_dim) * 0.02)
        self.position_projection = nn.Linear(config.position_dim, config.position_dim)
        self.dim = config.pixel_dim + config.position_dim

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens (B, H * W, dim) of pixels (B, C, H, W)."""
        return with_positions(rows(self.project(pixels)), self.position_projection(self.positions))


class FourierPixels(nn.Module):
    """Raw pixels beside Fourier positions."""

    def __init__(self, config: FourierClassifierConfig) -> None:
        super().__init__()
        self.positions = GridPositions((config.height, config.width), config.resolution, config.bands)
        self.dim = config.channels + self.positions.dim

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens (B, H * W, dim) of pixels (B, C, H, W)."""
        return with_positions(rows(pixels), self.positions.all())


class ConvPixels(nn.Module):
    """Convolution, batch normalisation and pooling to a quarter of the size, beside Fourier positions.

    Padding is symmetric, as in the released PyTorch weights: 224 pixels become 55 rows, not the paper's 56.
    """

    def __init__(self, config: ConvClassifierConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(config.channels, config.conv_dim, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(config.conv_dim)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.positions = GridPositions(config.grid, config.resolution, config.bands)
        self.dim = config.conv_dim + self.positions.dim

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens (B, rows * columns, dim) of pixels (B, C, H, W)."""
        maps = self.pool(torch.relu(self.norm(self.conv(pixels))))
        return with_positions(rows(maps), self.positions.all())
