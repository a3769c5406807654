"""Attention among channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pool(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens of x (B, L, d) where mask (B, L) is true: (B, d); zero where no token is."""
    if mask is None:
        return x.mean(dim=1)
    weights = mask.unsqueeze(-1).to(x.dtype)
    return (x * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


class ChannelAttention(nn.Module):
    """Features (B, L, d) to (B, L, d): softmax(Q K^T / sqrt(n)) V + Q over the d channels as tokens.

    Q and K (B, d, n) are projections of the features, transposed, n being the number of (unmasked) tokens L; V
    (B, d, 1) is a projection of the globally pooled features, broadcast along the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend among the channels of x (B, L, d); tokens where mask (B, L) is false have no part in it."""
        query, key = self.query(x), self.key(x)
        value = self.value(pool(x, mask)).unsqueeze(-1)
        if mask is None:
            return _attend(query, key, value, x.shape[1] ** -0.5)
        kept = mask.unsqueeze(-1).to(x.dtype)
        scale = kept.sum(dim=1, keepdim=True).clamp(min=1.0).rsqrt()
        return _attend(query * kept, key * kept, value, scale) * kept


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float | Tensor) -> Tensor:
    scores = torch.softmax((query.transpose(1, 2) @ key) * scale, dim=-1)
    return (scores @ value).transpose(1, 2) + query
