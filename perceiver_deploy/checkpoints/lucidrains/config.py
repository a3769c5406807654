"""Arguments of perceiver-pytorch's constructors, and the frozen configs of the reference models that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_deploy.checkpoints.fields import (
    ANYTHING,
    BANDS,
    FLAG,
    HEADS,
    LAYERS,
    MAX_POINTS,
    VOCABULARY,
    WIDTH,
    Field,
    choice,
    number,
    optional,
    whole,
)
from perceiver_deploy.models.classic import ClassicConfig, ClassicIOConfig, ClassicLanguageModelConfig
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_runtime.errors import CheckpointError

Json = Mapping[str, Any]
WIDENING = 4

NO = Field(choice(False), False)
FREE = Field(ANYTHING, None)
"""Arguments that change nothing at inference."""

SHARED: Mapping[str, Field] = {
    "depth": Field(LAYERS),
    "num_latents": Field(WIDTH, 512),
    "latent_dim": Field(WIDTH, 512),
    "cross_heads": Field(HEADS, 1),
    "latent_heads": Field(HEADS, 8),
    "cross_dim_head": Field(WIDTH, 64),
    "latent_dim_head": Field(WIDTH, 64),
    "weight_tie_layers": Field(FLAG, False),
    "inverted_cross_attn": NO,
    "attn_residual": NO,
    "attn_residual_rank": FREE,
    "attn_dropout": FREE,
    "ff_dropout": FREE,
    "seq_dropout_prob": FREE,
}
CLASSIFIER: Mapping[str, Field] = {
    **SHARED,
    "num_freq_bands": Field(BANDS),
    "max_freq": Field(number(1e-6, 1e9)),
    "freq_base": FREE,
    "input_channels": Field(WIDTH, 3),
    "input_axis": Field(whole(1, 4), 2),
    "num_classes": Field(WIDTH, 1000),
    "fourier_encode_data": Field(FLAG, True),
    "self_per_cross_attn": Field(LAYERS, 1),
    "final_classifier_head": Field(FLAG, True),
}
IO: Mapping[str, Field] = {
    **SHARED,
    "dim": Field(WIDTH),
    "queries_dim": Field(WIDTH),
    "logits_dim": Field(optional(WIDTH), None),
    "decoder_ff": Field(FLAG, False),
}
LANGUAGE: Mapping[str, Field] = {
    **SHARED,
    "num_tokens": Field(VOCABULARY),
    "max_seq_len": Field(whole(1, MAX_POINTS)),
    "dim": Field(WIDTH),
    "decoder_ff": Field(FLAG, False),
}
"""What the arguments of the package's constructors must be, and what they are where they are left out."""


def classifier(arguments: Json, sizes: tuple[int, ...]) -> ClassicConfig:
    """`Perceiver`, with its classification head or without."""
    if len(sizes) != arguments["input_axis"]:
        raise CheckpointError(f"config.json: expected {arguments['input_axis']} sizes (input_axis), got {len(sizes)}")
    return ClassicConfig(
        sizes=sizes,
        channels=arguments["input_channels"],
        bands=arguments["num_freq_bands"] if arguments["fourier_encode_data"] else 0,
        max_frequency=float(arguments["max_freq"]),
        latents=arguments["num_latents"],
        latent_dim=arguments["latent_dim"],
        cross=_cross(arguments, query_residual=True, widening=WIDENING),
        processor=_processor(arguments, arguments["depth"], arguments["self_per_cross_attn"]),
        classes=arguments["num_classes"] if arguments["final_classifier_head"] else None,
        tied=arguments["weight_tie_layers"],
    )


def perceiver_io(arguments: Json, sizes: tuple[int, ...]) -> ClassicIOConfig:
    """`PerceiverIO`, which takes any number of inputs and queries."""
    return ClassicIOConfig(
        arguments["dim"], arguments["queries_dim"], arguments["logits_dim"], perceiver=_trunk(arguments)
    )


def language_model(arguments: Json, sizes: tuple[int, ...]) -> ClassicLanguageModelConfig:
    """`PerceiverLM`, which takes texts of any length."""
    return ClassicLanguageModelConfig(
        vocabulary=arguments["num_tokens"],
        max_length=arguments["max_seq_len"],
        token_dim=arguments["dim"],
        perceiver=_trunk(arguments),
    )


def _trunk(arguments: Json) -> PerceiverConfig:
    blocks, layers = (arguments["depth"], 1) if arguments["weight_tie_layers"] else (1, arguments["depth"])
    return PerceiverConfig(
        latents=arguments["num_latents"],
        latent_dim=arguments["latent_dim"],
        encoder=_cross(arguments, query_residual=True, widening=WIDENING),
        processor=_processor(arguments, blocks, layers),
        decoder=_cross(arguments, query_residual=False, widening=WIDENING if arguments["decoder_ff"] else 0),
    )


def _cross(arguments: Json, *, query_residual: bool, widening: int) -> CrossAttentionConfig:
    width = arguments["cross_heads"] * arguments["cross_dim_head"]
    return CrossAttentionConfig(
        arguments["cross_heads"], width, width, widening, query_residual, gated=True, qkv_bias=False
    )


def _processor(arguments: Json, blocks: int, layers: int) -> ProcessorConfig:
    width = arguments["latent_heads"] * arguments["latent_dim_head"]
    heads = arguments["latent_heads"]
    return ProcessorConfig(blocks, layers, heads, WIDENING, width, width, gated=True, qkv_bias=False)
