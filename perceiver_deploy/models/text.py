"""Language: token embeddings in, one query per position or one per text out (Jaegle et al. 2021, section 4.1).

Tokens are UTF-8 bytes in the released models; nothing here depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver_deploy.models.attention import initialise
from perceiver_deploy.models.config import PerceiverConfig
from perceiver_deploy.models.perceiver import Perceiver


@dataclass(frozen=True)
class MaskedLanguageModelConfig:
    """`vocabulary` tokens of width `token_dim` at up to `max_length` positions, queried by queries of `query_dim`.

    `tied` reuses the token embeddings as output weights, and then needs query_dim = token_dim.
    """

    vocabulary: int
    max_length: int
    token_dim: int
    query_dim: int
    perceiver: PerceiverConfig
    tied: bool = True


@dataclass(frozen=True)
class SequenceClassifierConfig:
    """`vocabulary` tokens of width `token_dim` at up to `max_length` positions, queried by one query per text."""

    vocabulary: int
    max_length: int
    token_dim: int
    query_dim: int
    classes: int
    perceiver: PerceiverConfig


class TokenEmbedding(nn.Module):
    """Input adapter: ids (B, L) to embeddings plus learned positions (B, L, dim), L up to `max_length`."""

    def __init__(self, vocabulary: int, max_length: int, dim: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, dim)
        self.positions = nn.Parameter(torch.randn(max_length, dim) * 0.02)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed ids (B, L)."""
        embedded: Tensor = self.tokens(input_ids)
        return embedded + self.positions[: input_ids.shape[1]]


class TiedOutput(nn.Module):
    """Output adapter: decoded (B, O, C) against the token embeddings (V, C), plus a bias: logits (B, O, V)."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, decoded: Tensor, embeddings: Tensor) -> Tensor:
        """Score every token of the vocabulary."""
        return F.linear(decoded, embeddings, self.bias)


class MaskedLanguageModel(nn.Module):
    """Perceiver IO that answers one learned query per text position: ids (B, L) to logits (B, L, vocabulary)."""

    def __init__(self, config: MaskedLanguageModelConfig) -> None:
        super().__init__()
        if config.tied and config.query_dim != config.token_dim:
            raise ValueError(f"tied output needs query_dim {config.query_dim} = token_dim {config.token_dim}")
        self.config = config
        self.tokens = TokenEmbedding(config.vocabulary, config.max_length, config.token_dim)
        self.perceiver = Perceiver(config.perceiver, config.token_dim, config.query_dim)
        self.query = nn.Parameter(torch.randn(config.max_length, config.query_dim) * 0.02)
        self.head: nn.Module = (
            TiedOutput(config.vocabulary) if config.tied else nn.Linear(config.query_dim, config.vocabulary)
        )
        initialise(self)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Ids (B, L), read where attention_mask (B, L) is not 0, to latents (B, N, D)."""
        return self.perceiver.encode(self.tokens(input_ids), None if attention_mask is None else attention_mask != 0)

    def queries(self, positions: Tensor) -> Tensor:
        """Queries (1, O, query_dim) of text positions (O,), in any order and number."""
        return self.query[positions][None]

    def decode(self, latents: Tensor, queries: Tensor) -> Tensor:
        """Latents (B, N, D) queried by queries (1, O, query_dim): logits (B, O, vocabulary)."""
        return self.output(self.perceiver.decode(queries, latents))

    def output(self, decoded: Tensor) -> Tensor:
        """Decoded (B, O, query_dim) to logits (B, O, vocabulary)."""
        logits: Tensor = self.head(decoded, self.tokens.tokens.weight) if self.config.tied else self.head(decoded)
        return logits

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Ids (B, L) and mask (B, L) to logits (B, L, vocabulary)."""
        latents = self.perceiver.process(self.encode(input_ids, attention_mask))
        return self.decode(latents, self.query[None, : input_ids.shape[1]])


class SequenceClassifier(nn.Module):
    """Perceiver IO that answers one learned query per text: ids (B, L) to logits (B, classes)."""

    def __init__(self, config: SequenceClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = TokenEmbedding(config.vocabulary, config.max_length, config.token_dim)
        self.perceiver = Perceiver(config.perceiver, config.token_dim, config.query_dim)
        self.query = nn.Parameter(torch.randn(1, config.query_dim) * 0.02)
        self.head = nn.Linear(config.query_dim, config.classes)
        initialise(self)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Ids (B, L), read where attention_mask (B, L) is not 0, to latents (B, N, D)."""
        return self.perceiver.encode(self.tokens(input_ids), None if attention_mask is None else attention_mask != 0)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) to logits (B, classes)."""
        logits: Tensor = self.head(self.perceiver.decode(self.query[None], latents)[:, 0])
        return logits

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Ids (B, L) and mask (B, L) to logits (B, classes)."""
        return self.decode(self.perceiver.process(self.encode(input_ids, attention_mask)))
