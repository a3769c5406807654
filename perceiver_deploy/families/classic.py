"""The original Perceiver (arXiv 2103.03206): cross-attention before every block, mean of the latents at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby

import numpy as np
from torch import Tensor, nn

from perceiver_deploy.families.components import BATCH, component, latents_spec, make_cut, processor, repeated
from perceiver_deploy.families.family import Family
from perceiver_deploy.families.text import INPUTS, TEXT
from perceiver_deploy.families.text import sample as sample_text
from perceiver_deploy.models.classic import (
    ClassicConfig,
    ClassicIO,
    ClassicIOConfig,
    ClassicLanguageModel,
    ClassicLanguageModelConfig,
    ClassicPerceiver,
)
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_exporters.component import Cut
from perceiver_runtime.tensors import Array, Range, TensorSpec, ValueRange

KEPT = ValueRange(0, 1)
"""Values of a mask: 1 where an input is read."""
ANY_LENGTH = Range(1, 512, 1 << 14)
INPUT_LENGTH, QUERIES = 64, 16
"""Sizes of example inputs for models that take any."""


class Start(nn.Module):
    """Inputs (B, *sizes, C) to tokens (B, M, dim) and the initial latents (B, N, D)."""

    def __init__(self, model: ClassicPerceiver) -> None:
        super().__init__()
        self.tokens, self.initial = model.tokens, model.latents

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Input adapter."""
        return self.tokens(inputs), self.initial.expand(inputs.shape[0], -1, -1).clone()


class Mean(nn.Module):
    """Latents (B, N, D) to logits (B, classes)."""

    def __init__(self, model: ClassicPerceiver) -> None:
        super().__init__()
        self.norm, self.head = model.norm, model.head

    def forward(self, latents: Tensor) -> Tensor:
        """The mean of the latents, normalised, and the class head."""
        logits: Tensor = self.head(self.norm(latents.mean(dim=1)))
        return logits


class TokenReader(nn.Module):
    """Ids (B, L), read where attention_mask (B, L) is not 0, to tokens (B, L, C) and latents (B, N, D)."""

    def __init__(self, model: ClassicLanguageModel) -> None:
        super().__init__()
        self.tokens, self.initial, self.layer = model.tokens, model.perceiver.latents, model.perceiver.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and cross-attention."""
        tokens = self.tokens(input_ids)
        latents = self.initial.expand(input_ids.shape[0], -1, -1)
        return tokens, self.layer(latents, tokens, attention_mask != 0)


class Reader(nn.Module):
    """Inputs (B, M, C), read where mask (B, M) is not 0, to latents (B, N, D)."""

    def __init__(self, model: ClassicIO) -> None:
        super().__init__()
        self.initial, self.layer = model.perceiver.latents, model.perceiver.encoder

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Cross-attention."""
        latents: Tensor = self.layer(self.initial.expand(inputs.shape[0], -1, -1), inputs, mask != 0)
        return latents


class TokenDecoder(nn.Module):
    """Latents (B, N, D) queried by embedded tokens or queries (B, L, C), to logits (B, L, outputs)."""

    def __init__(self, model: ClassicLanguageModel | ClassicIO) -> None:
        super().__init__()
        self.layer, self.head = model.perceiver.decoder, model.head

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        """Cross-attention and output adapter."""
        logits: Tensor = self.head(self.layer(tokens, latents))
        return logits


def cut(model: ClassicPerceiver) -> Cut:
    """Token encoder, then each distinct stage as often as it runs in a row, then the class head if there is one."""
    config = model.config
    inputs = TensorSpec("inputs", "float32", ("batch", *config.sizes, config.channels))
    mask = TensorSpec("mask", "int64", ("batch", *config.sizes), KEPT)
    tokens = TensorSpec("tokens", "float32", ("batch", int(np.prod(config.sizes)), model.tokens.dim))
    latents = TensorSpec("latents", "float32", ("batch", config.latents, config.latent_dim))
    parts = [component("tokens", Start(model), (inputs,), (tokens, latents), "encode")]
    parts += [
        repeated(f"stage{stage}", model.stages[stage], latents, (tokens, mask), len(list(run)))
        for stage, run in groupby(model.schedule)
    ]
    answer = latents
    if config.classes is not None:
        answer = TensorSpec("logits", "float32", ("batch", config.classes))
        parts.append(component("decoder", Mean(model), (latents,), (answer,), "decode"))
    return make_cut(parts, (inputs, mask), (answer,), {"batch": BATCH}, {"mask": 1.0})


def cut_io(model: ClassicIO) -> Cut:
    """Encoder, processor block, decoder for any number of queries."""
    config = model.config
    inputs = TensorSpec("inputs", "float32", ("batch", "length", config.token_dim))
    mask = TensorSpec("mask", "int64", ("batch", "length"), KEPT)
    queries = TensorSpec("queries", "float32", ("batch", "queries", config.query_dim))
    latents = latents_spec(config.perceiver)
    answer = TensorSpec("logits", "float32", ("batch", "queries", config.outputs or config.query_dim))
    if config.outputs is None:
        answer = replace(answer, name="decoded")
    parts = [
        component("encoder", Reader(model), (inputs, mask), (latents,), "encode"),
        processor(model.perceiver.block, config.perceiver),
        component("decoder", TokenDecoder(model), (latents, queries), (answer,), "decode"),
    ]
    dimensions = {"batch": BATCH, "length": ANY_LENGTH, "queries": ANY_LENGTH}
    return make_cut(parts, (inputs, queries, mask), (answer,), dimensions, {"mask": 1.0})


def cut_language_model(model: ClassicLanguageModel) -> Cut:
    """Encoder, processor block, decoder."""
    config = model.config
    tokens = TensorSpec("tokens", "float32", (*TEXT, config.token_dim))
    latents = latents_spec(config.perceiver)
    logits = TensorSpec("logits", "float32", (*TEXT, config.vocabulary))
    parts = [
        component("encoder", TokenReader(model), INPUTS, (tokens, latents), "encode"),
        processor(model.perceiver.block, config.perceiver),
        component("decoder", TokenDecoder(model), (latents, tokens), (logits,), "decode"),
    ]
    dimensions = {"batch": BATCH, "length": Range(1, config.max_length, config.max_length)}
    return make_cut(parts, INPUTS, (logits,), dimensions, {"attention_mask": 1.0})


def sample(config: ClassicConfig, batch: int, random: np.random.Generator) -> Mapping[str, Array]:
    """Standard-normal inputs; rows are read up to random places."""
    return {
        "inputs": random.standard_normal((batch, *config.sizes, config.channels), dtype=np.float32),
        "mask": _mask(batch, config.sizes, random),
    }


def sample_io(config: ClassicIOConfig, batch: int, random: np.random.Generator) -> Mapping[str, Array]:
    """Standard-normal inputs and queries; rows are read up to random places."""
    return {
        "inputs": random.standard_normal((batch, INPUT_LENGTH, config.token_dim), dtype=np.float32),
        "queries": random.standard_normal((batch, QUERIES, config.query_dim), dtype=np.float32),
        "mask": _mask(batch, (INPUT_LENGTH,), random),
    }


def _mask(batch: int, sizes: tuple[int, ...], random: np.random.Generator) -> Array:
    """Ones up to a random place of each row, then zeros: (batch, *sizes)."""
    points = int(np.prod(sizes))
    ends = random.integers(1, points + 1, (batch, 1))
    return (np.arange(points) < ends).astype(np.int64).reshape(batch, *sizes)


_CROSS = CrossAttentionConfig(heads=1, qk_dim=64, v_dim=64, widening=4, gated=True, qkv_bias=False)
_PROCESSOR = ProcessorConfig(blocks=6, layers=2, heads=8, widening=4, qk_dim=512, v_dim=512, gated=True, qkv_bias=False)
IMAGE = ClassicConfig((224, 224), 3, 6, 10.0, 256, 512, _CROSS, _PROCESSOR, 1000)
TOKENS = ClassicLanguageModelConfig(
    20000,
    2048,
    32,
    PerceiverConfig(
        256, 512, _CROSS, replace(_PROCESSOR, blocks=1, layers=6), replace(_CROSS, widening=0, query_residual=False)
    ),
)
IO = ClassicIOConfig(32, 32, 100, TOKENS.perceiver)
"""The sizes of the package's own examples; nothing was released."""

CLASSIC_PERCEIVER = Family(
    name="classic-perceiver",
    summary="the original Perceiver: a class for any array",
    config=ClassicConfig,
    build=ClassicPerceiver,
    cut=cut,
    sample=sample,
    presets={"perceiver-pytorch-image": IMAGE},
)
CLASSIC_IO = Family(
    name="classic-perceiver-io",
    summary="any sequence, read by the caller's queries",
    config=ClassicIOConfig,
    build=ClassicIO,
    cut=cut_io,
    sample=sample_io,
    presets={"perceiver-pytorch-io": IO},
)
CLASSIC_LANGUAGE_MODEL = Family(
    name="classic-language-model",
    summary="a language model of GEGLU layers, queried by its own text",
    config=ClassicLanguageModelConfig,
    build=ClassicLanguageModel,
    cut=cut_language_model,
    sample=sample_text,
    presets={"perceiver-pytorch-text": TOKENS},
)
