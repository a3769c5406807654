"""The original Perceiver (Jaegle et al. 2021, arXiv 2103.03206) as lucidrains' perceiver-pytorch builds it.

It differs from Perceiver IO in its layers (GEGLU, no biases on queries, keys and values), reads its inputs again
before every block, and answers by the mean of its latents. That package's Perceiver IO has the same layers; its
language model asks the latents with the embedded text itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_deploy.models.attention import CrossAttentionLayer, ProcessorBlock
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_deploy.models.pixels import with_positions
from perceiver_deploy.models.positions import Bands, GridPositions
from perceiver_deploy.models.text import TokenEmbedding


@dataclass(frozen=True)
class ClassicConfig:
    """Inputs (*sizes, channels), beside Fourier positions of `bands` up to max_frequency / 2 (none if 0 bands).

    `processor.blocks` is the depth: how often inputs are read and refined. `tied` shares one set of weights
    between all of these but the first. A model without `classes` answers with its latents.
    """

    sizes: tuple[int, ...]
    channels: int
    bands: int
    max_frequency: float
    latents: int
    latent_dim: int
    cross: CrossAttentionConfig
    processor: ProcessorConfig
    classes: int | None
    tied: bool = False
    spaced: Bands = "linear"


@dataclass(frozen=True)
class ClassicIOConfig:
    """Inputs of width `token_dim`, queries of `query_dim`, and a head of `outputs` unless None."""

    token_dim: int
    query_dim: int
    outputs: int | None
    perceiver: PerceiverConfig


@dataclass(frozen=True)
class ClassicLanguageModelConfig:
    """`vocabulary` tokens of width `token_dim` at up to `max_length` positions, which also ask for the output."""

    vocabulary: int
    max_length: int
    token_dim: int
    perceiver: PerceiverConfig


class ClassicTokens(nn.Module):
    """Input adapter: (B, *sizes, C) to (B, M, C + positions), row major; each axis' features follow each other."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        frequencies = [config.max_frequency] * len(config.sizes)
        self.positions = (
            GridPositions(config.sizes, frequencies, config.bands, order="axis", spaced=config.spaced)
            if config.bands
            else None
        )
        self.dim = config.channels + (self.positions.dim if self.positions else 0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Tokens (B, M, dim) of inputs (B, *sizes, C)."""
        tokens = inputs.flatten(1, -2)
        return tokens if self.positions is None else with_positions(tokens, self.positions.all())


class Stage(nn.Module):
    """One reading of the inputs and the self-attention layers after it."""

    def __init__(self, dim: int, config: ClassicConfig) -> None:
        super().__init__()
        self.cross = CrossAttentionLayer(config.latent_dim, dim, config.cross)
        self.block = ProcessorBlock(config.latent_dim, config.processor)

    def forward(self, latents: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Latents (B, N, D) after tokens (B, M, C), read where mask (B, *sizes) is not 0."""
        read = None if mask is None else mask.flatten(1) != 0
        refined: Tensor = self.block(self.cross(latents, tokens, read))
        return refined


class ClassicPerceiver(nn.Module):
    """Inputs (B, *sizes, C) to logits (B, classes) by the mean of the latents, or to the latents (B, N, D)."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = ClassicTokens(config)
        self.latents = nn.Parameter(torch.randn(config.latents, config.latent_dim))
        distinct = min(config.processor.blocks, 2) if config.tied else config.processor.blocks
        self.stages = nn.ModuleList(Stage(self.tokens.dim, config) for _ in range(distinct))
        if config.classes is not None:
            self.norm = nn.LayerNorm(config.latent_dim)
            self.head = nn.Linear(config.latent_dim, config.classes)

    @property
    def schedule(self) -> tuple[int, ...]:
        """Which of `stages` runs at each depth."""
        return tuple(min(depth, len(self.stages) - 1) for depth in range(self.config.processor.blocks))

    def start(self, batch: int) -> Tensor:
        """The latents (B, N, D) before any reading."""
        return self.latents.expand(batch, -1, -1)

    def answer(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) to logits (B, classes)."""
        logits: Tensor = self.head(self.norm(latents.mean(dim=1)))
        return logits

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Inputs (B, *sizes, C), read where mask (B, *sizes) is not 0, to logits (B, classes) or latents."""
        tokens, latents = self.tokens(inputs), self.start(inputs.shape[0])
        for stage in self.schedule:
            latents = self.stages[stage](latents, tokens, mask)
        return latents if self.config.classes is None else self.answer(latents)


class ClassicIO(nn.Module):
    """Inputs (B, M, C) and queries (B, O, query_dim): (B, O, outputs), or without a head (B, O, query_dim)."""

    def __init__(self, config: ClassicIOConfig) -> None:
        super().__init__()
        self.config = config
        self.perceiver = Perceiver(config.perceiver, config.token_dim, config.query_dim)
        self.head = nn.Identity() if config.outputs is None else nn.Linear(config.query_dim, config.outputs)

    def encode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Inputs (B, M, C), read where mask (B, M) is not 0, to latents (B, N, D)."""
        return self.perceiver.encode(inputs, None if mask is None else mask != 0)

    def decode(self, latents: Tensor, queries: Tensor) -> Tensor:
        """Cross-attention from queries (B, O, query_dim) to latents (B, N, D)."""
        answers: Tensor = self.head(self.perceiver.decode(queries, latents))
        return answers

    def forward(self, inputs: Tensor, queries: Tensor, mask: Tensor | None = None) -> Tensor:
        """Answers to the queries."""
        return self.decode(self.perceiver.process(self.encode(inputs, mask)), queries)


class ClassicLanguageModel(nn.Module):
    """Ids (B, L) to logits (B, L, vocabulary); the embedded text is read, and asks."""

    def __init__(self, config: ClassicLanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = TokenEmbedding(config.vocabulary, config.max_length, config.token_dim)
        self.perceiver = Perceiver(config.perceiver, config.token_dim, config.token_dim)
        self.head = nn.Linear(config.token_dim, config.vocabulary)

    def encode(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embedded tokens (B, L, C), read where attention_mask (B, L) is not 0, to latents (B, N, D)."""
        return self.perceiver.encode(tokens, None if attention_mask is None else attention_mask != 0)

    def decode(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Latents (B, N, D) queried by any of the embedded tokens (B, O, C): logits (B, O, vocabulary)."""
        logits: Tensor = self.head(self.perceiver.decode(tokens, latents))
        return logits

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Ids (B, L) and mask (B, L) to logits (B, L, vocabulary)."""
        tokens = self.tokens(input_ids)
        return self.decode(self.perceiver.process(self.encode(tokens, attention_mask)), tokens)
