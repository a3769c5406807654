"""Sinusoidal positions with a learned scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_deploy.models.hybrid.config import Combine


def sinusoids(length: int, dim: int) -> Tensor:
    """P (length, dim): sin and cos of l / 10000^(2i/dim) in turn, computed in FP64 (Vaswani et al. 2017, 3.5)."""
    rates = 10000.0 ** (-np.arange(0, dim, 2) / dim)
    angles = np.arange(length)[:, None] * rates
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, -1)[:, :dim]
    return torch.from_numpy(table.astype(np.float32))


_COMBINE: Mapping[Combine, Callable[[Tensor, Tensor], Tensor]] = {
    "multiply": lambda x, p: x * p,
    "add": lambda x, p: x + p,
    "concat": lambda x, p: torch.cat([x, p.expand(x.shape[0], -1, -1)], dim=-1),
}


class ScaledPositions(nn.Module):
    """Features (B, L, d) joined with theta * P by multiply, add, or concat and a projection back to d."""

    table: Tensor

    def __init__(self, length: int, dim: int, combine: Combine) -> None:
        super().__init__()
        self.combine = _COMBINE[combine]
        self.theta = nn.Parameter(torch.ones(1))
        self.register_buffer("table", sinusoids(length, dim), persistent=False)
        self.project = nn.Linear(2 * dim, dim) if combine == "concat" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Place features (B, L, d); L may be anything up to the table's length."""
        placed: Tensor = self.project(self.combine(x, self.theta * self.table[: x.shape[1]].unsqueeze(0)))
        return placed
