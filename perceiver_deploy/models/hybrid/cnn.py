"""Convolutional encoder."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from perceiver_deploy.models.hybrid.config import ImageConfig


def convolution(dim: int, width: int, stride: int) -> nn.Sequential:
    """3x3 convolution with same padding, batch normalisation (which folds into it at export), ReLU."""
    return nn.Sequential(
        nn.Conv2d(dim, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


class ConvolutionalEncoder(nn.Module):
    """Images (B, C, H, W) to a feature map (B, c, h, w) and a global feature (B, d)."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        if len(config.widths) != len(config.strides):
            raise ValueError(f"expected one stride per width, got {config.strides} for {config.widths}")
        dims = (config.channels, *config.widths)
        layers = zip(pairwise(dims), config.strides, strict=True)
        self.convolutions = nn.Sequential(*(convolution(a, b, stride) for (a, b), stride in layers))
        connected = pairwise((config.widths[-1], *config.global_dims))
        self.connected = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in connected))
        self.dim, self.global_dim = config.widths[-1], config.global_dims[-1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature map (B, c, h, w) of images (B, C, H, W), and the global feature (B, d) of its mean."""
        features = self.convolutions(images)
        return features, self.connected(features.mean(dim=(2, 3)))


def tokens(features: Tensor) -> Tensor:
    """Feature map (B, c, h, w) as tokens (B, h * w, c), row major."""
    return features.flatten(2).transpose(1, 2)
