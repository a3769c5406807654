"""From a modality's raw input to the features that the interaction takes: encoder, positions, refinements."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from perceiver_deploy.models.hybrid.channel_attention import ChannelAttention
from perceiver_deploy.models.hybrid.channel_linear import ChannelLinear
from perceiver_deploy.models.hybrid.cnn import ConvolutionalEncoder, tokens
from perceiver_deploy.models.hybrid.config import FeatureConfig, ImageConfig, Refinement, TextConfig
from perceiver_deploy.models.hybrid.frequency_attention import FrequencyAttention
from perceiver_deploy.models.hybrid.positions import ScaledPositions
from perceiver_deploy.models.hybrid.recurrent_encoder import RecurrentEncoder

MISSING_PIXEL = -1.0
"""An image filled with it is missing: real pixels lie in [0, 1]."""

REFINEMENTS: Mapping[Refinement, Callable[[int, int, FeatureConfig], nn.Module]] = {
    "channel_attention": lambda length, dim, config: ChannelAttention(dim),
    "frequency_attention": lambda length, dim, config: FrequencyAttention(length, dim),
    "channel_linear": lambda length, dim, config: ChannelLinear(dim, dim, config.groups),
}


class Refined(nn.Module):
    """Positions, then the configured refinements, each behind a normalisation: features (B, L, d) keep their shape."""

    def __init__(self, length: int, dim: int, config: FeatureConfig) -> None:
        super().__init__()
        self.positions = ScaledPositions(length, dim, config.positions)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in config.refinements)
        self.refinements = nn.ModuleList(REFINEMENTS[name](length, dim, config) for name in config.refinements)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Refine x (B, L, d), L tokens of which mask (B, L) keeps some."""
        x = self.positions(x)
        for norm, refinement in zip(self.norms, self.refinements, strict=True):
            x = refinement(norm(x), mask)
        return x


class ImageEncoder(nn.Module):
    """Pixels (B, C, H, W) in [0, 1] to features (B, h * w + 1, c): the map's cells, then the global feature."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.encoder = ConvolutionalEncoder(config)
        self.refined = Refined(config.tokens - 1, self.encoder.dim, config.features)
        self.project_global = nn.Linear(self.encoder.global_dim, self.encoder.dim)
        self.dim = self.encoder.dim

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of pixels (B, C, H, W)."""
        features, overall = self.encoder(2.0 * pixels - 1.0)
        local = self.refined(tokens(features))
        return torch.cat([local, self.project_global(overall).unsqueeze(1)], dim=1)


class OptionalImageEncoder(ImageEncoder):
    """An `ImageEncoder` whose image may be missing (filled with `MISSING_PIXEL`): adds a mask (B, h * w + 1)."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Features of pixels (B, C, H, W), and whether they count."""
        present = pixels.amax(dim=(1, 2, 3)) >= 0.0
        features = super().forward(pixels * present.to(pixels.dtype)[:, None, None, None])
        return features, present.unsqueeze(1).expand(-1, features.shape[1])


class TextEncoder(nn.Module):
    """Ids (B, L), 0 where padded, to features (B, L, d) and their mask (B, L). A text of padding alone is missing."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.encoder = RecurrentEncoder(config)
        self.refined = Refined(config.length, config.dim, config.features)
        self.dim = config.dim

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Features of ids (B, L), and whether they count."""
        features, mask = self.encoder(ids)
        return self.refined(features, mask), mask
