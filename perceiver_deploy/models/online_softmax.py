"""Cross-attention over chunks of inputs by online softmax: exact, without the whole score matrix.

For each query and head the state (arXiv:1805.02867, arXiv:2112.05682) holds the largest score so far `m`, the sum of
exp(score - m) `total`, and the values weighted by exp(score - m) `acc`. Three modules share
the layer's parameters, so that a pipeline can run `Begin` once, `Update` for every chunk, and `Finish` once:

    q, m, total, acc = Begin(layer)(query)
    for each chunk:  m, total, acc = Update(layer)(q, m, total, acc, chunk, mask)
    latents = Finish(layer)(query, total, acc)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perceiver_deploy.models.attention import LOWEST_SCORE, CrossAttentionLayer, score_limit

State = tuple[Tensor, Tensor, Tensor]


class Begin(nn.Module):
    """Project the queries and start empty sums."""

    def __init__(self, layer: CrossAttentionLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query (B, N, q_dim) to scaled heads q (B, h, N, e), m and total (B, h, N, 1), acc (B, h, N, f).

        The running maximum starts at the lowest score, which is that of a masked input: `total` counts such inputs
        until the first other one comes, whose score makes their decay zero.
        """
        attention = self.layer.attention
        q = attention.queries(self.layer.query_norm(query))
        empty = torch.zeros_like(q[..., :1])
        width = attention.value.out_features // attention.heads
        scaled = q / math.sqrt(q.shape[-1])
        return scaled, empty + LOWEST_SCORE, empty, empty.expand(-1, -1, -1, width).clone()


class Update(nn.Module):
    """Add one chunk of inputs to the running sums."""

    def __init__(self, layer: CrossAttentionLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, q: Tensor, m: Tensor, total: Tensor, acc: Tensor, inputs: Tensor, mask: Tensor | None = None
    ) -> State:
        """State and inputs (B, M', kv_dim), read where mask (B, M') is true, to the next m, total and acc."""
        key, value = self.layer.attention.keys_values(self.layer.input_norm(inputs))
        scores = q @ key.transpose(-1, -2)
        if mask is not None:
            scores = torch.minimum(scores, score_limit(mask, scores.dtype))
        highest = torch.maximum(m, scores.amax(-1, keepdim=True))
        weights, decay = torch.exp(scores - highest), torch.exp(m - highest)
        return highest, total * decay + weights.sum(-1, keepdim=True), acc * decay + weights @ value


class Finish(nn.Module):
    """Normalise the sums and run the rest of the layer."""

    def __init__(self, layer: CrossAttentionLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, query: Tensor, total: Tensor, acc: Tensor) -> Tensor:
        """Query (B, N, q_dim) and the final total and acc to what `layer(query, inputs)` gives: (B, N, q_dim)."""
        return self.layer.update(query, self.layer.attention.merge(acc / total))
