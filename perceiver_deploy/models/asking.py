"""Cross-attention whose inputs stay while queries come in chunks: keys and values are made once, for any queries.

    key, value = KeysValues(layer)(latents)
    for each chunk of queries:  answers = Ask(layer)(query, key, value)

gives what `layer(query, latents)` gives for all queries together.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from perceiver_deploy.models.attention import CrossAttentionLayer, attend


class KeysValues(nn.Module):
    """What the layer's queries meet: inputs (B, M, kv_dim) to key (B, h, M, e) and value (B, h, M, f).

    With one head, values pass the output projection here where that is less work for every query,
    A (V Wo) for (A V) Wo, and f is the layer's width instead of the values'.
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


class Ask(nn.Module):
    """Queries (B or 1, N, q_dim), key and value of `KeysValues` to answers (B, N, q_dim)."""

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
    """Width of `KeysValues`' value over all heads."""
    output = layer.attention.output
    return output.out_features if values_are_projected(layer, inputs) else output.in_features


def values_are_projected(layer: CrossAttentionLayer, inputs: int) -> bool:
    """Whether a query costs less if its values have passed the output projection before."""
    output = layer.attention.output
    after = output.in_features * (inputs + output.out_features)
    return layer.attention.heads == 1 and inputs * output.out_features <= after
