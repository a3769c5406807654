"""A linear transformation of the channels, token by token."""

from __future__ import annotations

from torch import Tensor, nn


class ChannelLinear(nn.Module):
    """Features (B, L, d) to (B, L, d'): a 1x1 convolution, in `groups` independent groups of channels."""

    def __init__(self, dim: int, out_dim: int, groups: int = 1) -> None:
        super().__init__()
        if dim % groups or out_dim % groups:
            raise ValueError(f"expected widths that are multiples of {groups} groups, got {dim} and {out_dim}")
        self.convolution = nn.Conv1d(dim, out_dim, 1, groups=groups)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Transform x (B, L, d); where mask (B, L) is false the result is zero."""
        mixed: Tensor = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        return mixed if mask is None else mixed * mask.unsqueeze(-1).to(x.dtype)
