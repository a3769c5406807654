"""Recurrent encoder over a padded batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.models.hybrid.config import TextConfig
from perceiver_deploy.models.hybrid.recurrence import Recurrence

PADDING = 0


def reversal(mask: Tensor) -> Tensor:
    """Positions (B, L) that reverse each sequence within its own length and leave the padding after it in place.

    Applying them twice gives the original order. Sequences lie at the left: mask (B, L) is true, then false.
    """
    lengths = mask.sum(dim=1, keepdim=True)
    position = torch.arange(mask.shape[1], device=mask.device).unsqueeze(0)
    return torch.where(mask, lengths - 1 - position, position)


def reorder(x: Tensor, positions: Tensor) -> Tensor:
    """Take x (B, L, d) along its tokens in the order of positions (B, L)."""
    return torch.gather(x, 1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class RecurrentLayer(nn.Module):
    """One layer over a padded batch, in one direction or two: equal to running each sequence at its own length.

    Padding stands behind a sequence, so that the forward direction never reads it. The backward direction is a
    forward one over sequences reversed within their lengths: gathers, which every engine has, rather than packed
    sequences, which none has.
    """

    def __init__(self, config: TextConfig, dim: int) -> None:
        super().__init__()
        self.ahead = Recurrence(config.cell, dim, config.hidden)
        self.back = Recurrence(config.cell, dim, config.hidden) if config.bidirectional else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Features (B, L, dim) to (B, L, hidden or 2 * hidden), zero where mask (B, L) is false."""
        outputs, _ = self.ahead(x)
        if self.back is not None:
            positions = reversal(mask)
            backward, _ = self.back(reorder(x, positions))
            outputs = torch.cat([outputs, reorder(backward, positions)], dim=-1)
        masked: Tensor = outputs * mask.unsqueeze(-1).to(outputs.dtype)
        return masked


class RecurrentEncoder(nn.Module):
    """Ids (B, L), 0 where padded, to features (B, L, d) and their mask (B, L)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.embedding, padding_idx=PADDING)
        dims = (config.embedding, *(config.dim for _ in range(config.layers - 1)))
        self.layers = nn.ModuleList(RecurrentLayer(config, dim) for dim in dims)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, L, d), zero at padding, and the mask (B, L), true at ids."""
        mask = ids != PADDING
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, mask)
        return x, mask
