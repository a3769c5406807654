"""Interaction of modalities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_deploy.models.hybrid.channel_attention import pool

ABSENT = -1e4
"""Score of a missing modality: its weight is zero, in FP16 as well; if all are missing, all weigh the same."""


@dataclass(frozen=True)
class Features:
    """One modality's tokens (B, L, d) and the mask (B, L) of those that count; None means all of them."""

    tokens: Tensor
    mask: Tensor | None = None


class FeatureInteraction(nn.Module):
    """Modalities {(B, Li, di)} to (B, sum Li, d) and its mask.

    Each is projected to d and normalised (else the one with the larger features takes all weight early in
    training and the others die), weighted by a softmax over the modalities whose scores are linear in the mean of its
    tokens, and joined along the tokens; one linear transformation follows. A modality whose mask is false
    throughout is missing: its weight is zero and its tokens stay masked.
    """

    def __init__(self, dims: Sequence[int], dim: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Sequential(nn.Linear(d, dim), nn.LayerNorm(dim)) for d in dims)
        self.scores = nn.ModuleList(nn.Linear(dim, 1) for _ in dims)
        self.mix = nn.Linear(dim, dim)

    def forward(self, modalities: Sequence[Features]) -> tuple[Tensor, Tensor | None]:
        """Fuse as many modalities as there are projections, in their order."""
        projected = [p(m.tokens) for p, m in zip(self.projections, modalities, strict=True)]
        weights = self.weights(projected, [m.mask for m in modalities])
        weighted = [x * weights[:, i, None, None] for i, x in enumerate(projected)]
        return self.mix(torch.cat(weighted, dim=1)), _joined_mask(modalities)

    def weights(self, projected: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """Weights (B, modalities), which sum to one over the modalities that are there."""
        scores = []
        for score, x, mask in zip(self.scores, projected, masks, strict=True):
            scored = score(pool(x, mask))
            scores.append(scored if mask is None else torch.where(mask.any(dim=1, keepdim=True), scored, ABSENT))
        return torch.softmax(torch.cat(scores, dim=1), dim=1)


def _joined_mask(modalities: Sequence[Features]) -> Tensor | None:
    if all(m.mask is None for m in modalities):
        return None
    masks = [m.tokens.new_ones(m.tokens.shape[:2], dtype=torch.bool) if m.mask is None else m.mask for m in modalities]
    return torch.cat(masks, dim=1)
