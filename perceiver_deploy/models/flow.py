"""Optical flow: two frames of pixel patches in, one query per pixel out (Jaegle et al. 2021, section 4.2).

The queries are the input tokens themselves, so any chunk of tokens decodes to the flow of its pixels, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from perceiver_deploy.models.attention import initialise
from perceiver_deploy.models.config import PerceiverConfig
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_deploy.models.pixels import rows, with_positions
from perceiver_deploy.models.positions import GridPositions


@dataclass(frozen=True)
class FlowConfig:
    """Frame pairs (2, patch_dim, H, W), where `patch_dim` holds a pixel's neighbourhood (3 x 3 x RGB = 27).

    `divisor` is what the network's output is divided by to give the flow it was trained on.
    """

    height: int
    width: int
    patch_dim: int
    token_dim: int
    bands: int
    perceiver: PerceiverConfig
    divisor: float = 100.0


class FlowTokens(nn.Module):
    """Input adapter: both frames' patches projected together, beside Fourier positions of their pixel."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        size = (config.height, config.width)
        self.project = nn.Linear(2 * config.patch_dim, config.token_dim)
        self.positions = GridPositions(size, size, config.bands)
        self.dim = config.token_dim + self.positions.dim

    def forward(self, inputs: Tensor) -> Tensor:
        """Tokens (B, H * W, dim) of frame pairs (B, 2, patch_dim, H, W), row major."""
        return with_positions(self.project(rows(inputs.flatten(1, 2))), self.positions.all())

    def rows(self, inputs: Tensor, index: Tensor) -> Tensor:
        """Tokens (B, O * W, dim) of the rows `index` (O,) of the frames, given (B, 2, patch_dim, O, W)."""
        return with_positions(self.project(rows(inputs.flatten(1, 2))), self.positions.slices(index))

    def at(self, patches: Tensor, coordinates: Tensor) -> Tensor:
        """Tokens (B, O, dim) of patches (B, O, 2 * patch_dim) taken at pixels (O, 2): a chunk of `forward`."""
        return with_positions(self.project(patches), self.positions(coordinates))


class OpticalFlow(nn.Module):
    """Perceiver IO that answers one query per pixel: frame pairs (B, 2, patch_dim, H, W) to flow (B, H, W, 2)."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = FlowTokens(config)
        self.perceiver = Perceiver(config.perceiver, self.tokens.dim, self.tokens.dim)
        self.head = nn.Linear(self.tokens.dim, 2)
        initialise(self)

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, H * W, C) to latents (B, N, D)."""
        return self.perceiver.encode(tokens)

    def decode(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Latents (B, N, D) queried by any of the tokens (B, O, C): horizontal and vertical flow (B, O, 2)."""
        flow: Tensor = self.head(self.perceiver.decode(tokens, latents)) / self.config.divisor
        return flow

    def forward(self, inputs: Tensor) -> Tensor:
        """Frame pairs (B, 2, patch_dim, H, W) to flow (B, H, W, 2)."""
        tokens = self.tokens(inputs)
        flow = self.decode(self.perceiver.process(self.encode(tokens)), tokens)
        return flow.reshape(-1, self.config.height, self.config.width, 2)
