"""Cross-attention with a KV cache: keys and values are projected once, for any number of chunks of queries.

    key, value = ProjectKV(layer)(latents)
    for each chunk of queries:  outputs = CachedCrossAttention(layer)(query, key, value)

equals `layer(query, latents)` for all queries together.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from perceiver_deploy.models.attention import CrossAttentionLayer, attend


class ProjectKV(nn.Module):
    """Inputs (B, M, kv_dim) to key (B, h, M, e) and value (B, h, M, f).

    With one head, values pass the output projection here where that costs less: A (V Wo) instead of (A V) Wo; f is
    then the layer's width.
    """

    def __init__(self, layer: CrossAttentionLayer, inputs: int) -> None:
        super().__init__()
        self.norm, self.attention = layer.input_norm, layer.attention
        self.projects = values_are_projected(layer, inputs)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise and project."""
        attention, normed = self.attention, self.norm(inputs)
        value = attention.value(normed)
        if self.projects:
            value = F.linear(value, attention.output.weight)
        return attention.split(attention.key(normed)), attention.split(value)


class CachedCrossAttention(nn.Module):
    """Queries (B or 1, N, q_dim), key and value of `ProjectKV` to (B, N, q_dim)."""

    def __init__(self, layer: CrossAttentionLayer, inputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.projected = values_are_projected(layer, inputs)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend, and run the rest of the layer."""
        attention = self.layer.attention
        attended = attend(attention.queries(self.layer.query_norm(query)), key, value)
        merged = attended.squeeze(1) + attention.output.bias if self.projected else attention.merge(attended)
        return self.layer.update(query, merged)


def value_width(layer: CrossAttentionLayer, inputs: int) -> int:
    """Width of `ProjectKV`' value over all heads."""
    output = layer.attention.output
    return output.out_features if values_are_projected(layer, inputs) else output.in_features


def values_are_projected(layer: CrossAttentionLayer, inputs: int) -> bool:
    """Whether it costs less to apply the output projection to the values than to every query's result."""
    output = layer.attention.output
    after = output.in_features * (inputs + output.out_features)
    return layer.attention.heads == 1 and inputs * output.out_features <= after
