"""krasserm/perceiver-io models written by `save_pretrained` (version 0.7 and later).

The package's own checkpoints (`.ckpt` of PyTorch Lightning) contain Python objects and are refused: save the model with
`save_pretrained` where it was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from perceiver_deploy.checkpoints.fields import (
    WIDTH,
    Field,
    few_points,
    number,
    optional,
    read,
)
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_deploy.checkpoints.files.tensors import find_weights, read_tensors
from perceiver_deploy.checkpoints.filling import filled
from perceiver_deploy.checkpoints.krasserm.fields import CLASSES, DECODER, ENCODER, IMAGE, MODEL, PATCHES, TOKENS
from perceiver_deploy.checkpoints.loaded import DEFAULT, LoadedCheckpoint, LoadOptions
from perceiver_deploy.checkpoints.renaming import Rule, rename, under
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.flow import FlowConfig, OpticalFlow
from perceiver_deploy.models.image_classifier import ImageClassifier
from perceiver_deploy.models.pixels import FourierClassifierConfig
from perceiver_deploy.models.positions import fourier_dim
from perceiver_deploy.models.text import (
    MaskedLanguageModel,
    MaskedLanguageModelConfig,
    SequenceClassifier,
    SequenceClassifierConfig,
)
from perceiver_runtime.errors import CheckpointError

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """One model type of the package: its family, config and model, and the renaming of its tensors.

    `encoder` and `decoder` are conditions on the fields of these parts of its config.
    """

    family: str
    config: Callable[[Json, Json, Json], Any]
    build: Callable[[Any], nn.Module]
    rules: tuple[Rule, ...]
    encoder: Mapping[str, Field]
    decoder: Mapping[str, Field]


def masked_language_model(model: Json, encoder: Json, decoder: Json) -> MaskedLanguageModelConfig:
    """perceiver-io-masked-language-model: tied to the embeddings unless the queries have a width of their own."""
    query_dim = decoder["num_output_query_channels"]
    token_dim = encoder["num_input_channels"]
    return MaskedLanguageModelConfig(
        vocabulary=encoder["vocab_size"],
        max_length=encoder["max_seq_len"],
        token_dim=token_dim,
        query_dim=query_dim or token_dim,
        perceiver=_perceiver(model, encoder, decoder, model["num_latent_channels"], query_dim or token_dim),
        tied=query_dim is None,
    )


def text_classifier(model: Json, encoder: Json, decoder: Json) -> SequenceClassifierConfig:
    """perceiver-io-text-classifier."""
    query_dim = _single_query(decoder)
    return SequenceClassifierConfig(
        vocabulary=encoder["vocab_size"],
        max_length=encoder["max_seq_len"],
        token_dim=encoder["num_input_channels"],
        query_dim=query_dim,
        classes=decoder["num_classes"],
        perceiver=_perceiver(model, encoder, decoder, model["num_latent_channels"], query_dim),
    )


def image_classifier(model: Json, encoder: Json, decoder: Json) -> FourierClassifierConfig:
    """perceiver-io-image-classifier. The package puts channels last, the reference model first."""
    query_dim = _single_query(decoder)
    height, width, channels = encoder["image_shape"]
    bands = encoder["num_frequency_bands"]
    return FourierClassifierConfig(
        channels=channels,
        height=height,
        width=width,
        bands=bands,
        resolution=(height, width),
        query_dim=query_dim,
        classes=decoder["num_classes"],
        perceiver=_perceiver(model, encoder, decoder, channels + fourier_dim(2, bands), query_dim),
    )


def optical_flow(model: Json, encoder: Json, decoder: Json) -> FlowConfig:
    """perceiver-io-optical-flow."""
    height, width = encoder["image_shape"]
    dim = encoder["num_patch_hidden_channels"] + fourier_dim(2, encoder["num_frequency_bands"])
    return FlowConfig(
        height=height,
        width=width,
        patch_dim=encoder["num_patch_input_channels"],
        token_dim=encoder["num_patch_hidden_channels"],
        bands=encoder["num_frequency_bands"],
        perceiver=_perceiver(model, encoder, decoder, dim, dim),
        divisor=float(decoder["rescale_factor"]),
    )


def _perceiver(model: Json, encoder: Json, decoder: Json, encoder_qk: int, query_dim: int) -> PerceiverConfig:
    """The trunk; `encoder_qk` and `query_dim` are the default widths of queries and keys."""
    latent_dim = model["num_latent_channels"]
    if encoder["num_cross_attention_layers"] != 1:
        raise CheckpointError(
            f"config.json: expected num_cross_attention_layers 1, got {encoder['num_cross_attention_layers']}; "
            "models that read their inputs repeatedly are not supported in this format"
        )
    if encoder["num_self_attention_blocks"] > 1 and not encoder["first_self_attention_block_shared"]:
        raise CheckpointError(
            "config.json: expected one block of shared weights (first_self_attention_block_shared true), got false; "
            "a first block of its own is not supported"
        )
    own_qk = encoder["num_self_attention_qk_channels"] or latent_dim
    processor = ProcessorConfig(
        blocks=encoder["num_self_attention_blocks"],
        layers=encoder["num_self_attention_layers_per_block"],
        heads=encoder["num_self_attention_heads"],
        widening=encoder["self_attention_widening_factor"],
        qk_dim=own_qk,
        v_dim=encoder["num_self_attention_v_channels"] or own_qk,
    )
    return PerceiverConfig(
        latents=model["num_latents"],
        latent_dim=latent_dim,
        encoder=_cross(encoder, encoder_qk, residual=True),
        processor=processor,
        decoder=_cross(decoder, query_dim, residual=decoder["cross_attention_residual"]),
    )


def _cross(part: Json, default_qk: int, *, residual: bool) -> CrossAttentionConfig:
    qk_dim = part["num_cross_attention_qk_channels"] or default_qk
    return CrossAttentionConfig(
        heads=part["num_cross_attention_heads"],
        qk_dim=qk_dim,
        v_dim=part["num_cross_attention_v_channels"] or qk_dim,
        widening=part["cross_attention_widening_factor"],
        query_residual=residual,
    )


def _single_query(decoder: Json) -> int:
    if decoder["num_output_queries"] != 1:
        raise CheckpointError(f"config.json: expected num_output_queries 1, got {decoder['num_output_queries']}")
    return int(decoder["num_output_query_channels"])


ATTENTION = tuple(
    (f"attention.{n}_proj.{{p}}", f"attention.{name}.{{p}}")
    for n, name in zip("qkvo", ("query", "key", "value", "output"), strict=True)
)
MLP = (("0.{p}", "mlp_norm.{p}"), ("1.{p}", "mlp.0.{p}"), ("3.{p}", "mlp.2.{p}"))
CROSS = (("q_norm.{p}", "query_norm.{p}"), ("kv_norm.{p}", "input_norm.{p}"), *ATTENTION)
TRUNK = (
    rename("0.latent_provider._query", "perceiver.latents"),
    *under("0.cross_attn_1.0.module", "perceiver.encoder", CROSS),
    *under("0.cross_attn_1.1.module", "perceiver.encoder", MLP),
    *under("0.self_attn_1.{i}.0.module", "perceiver.block.{i}", (("norm.{p}", "norm.{p}"), *ATTENTION)),
    *under("0.self_attn_1.{i}.1.module", "perceiver.block.{i}", MLP),
    *under("1.cross_attn.0.module", "perceiver.decoder", CROSS),
    *under("1.cross_attn.0", "perceiver.decoder", CROSS),  # without the queries' residual there is no `module`
    *under("1.cross_attn.1.module", "perceiver.decoder", MLP),
    rename("1.output_query_provider._query", "query"),
    rename("1.output_adapter.linear.{p}", "head.{p}"),
)
TEXT = (
    rename("0.input_adapter.txt_embedding.weight", "tokens.tokens.weight"),
    rename("0.input_adapter.pos_embedding.weight", "tokens.positions"),
)
# A function of the config alone, computed again in FP64.
POSITIONS = rename("0.input_adapter.position_encoding.position_encoding")

KINDS: dict[str, Kind] = {
    "perceiver-io-masked-language-model": Kind(
        "masked-language-model",
        masked_language_model,
        MaskedLanguageModel,
        (*TRUNK, *TEXT, rename("1.output_adapter.bias", "head.bias")),
        {**ENCODER, **TOKENS},
        {**DECODER, "num_output_query_channels": Field(optional(WIDTH))},
    ),
    "perceiver-io-text-classifier": Kind(
        "sequence-classifier",
        text_classifier,
        SequenceClassifier,
        (*TRUNK, *TEXT),
        {**ENCODER, **TOKENS},
        {**DECODER, **CLASSES},
    ),
    "perceiver-io-image-classifier": Kind(
        "image-classifier-fourier",
        image_classifier,
        ImageClassifier,
        (*TRUNK, POSITIONS),
        {**ENCODER, **IMAGE},
        {**DECODER, **CLASSES},
    ),
    "perceiver-io-optical-flow": Kind(
        "optical-flow",
        optical_flow,
        OpticalFlow,
        (*TRUNK, POSITIONS, rename("0.input_adapter.linear.{p}", "tokens.project.{p}")),
        {**ENCODER, **PATCHES},
        {**DECODER, "rescale_factor": Field(number(1e-30, 1e30))},
    ),
}


AUTOREGRESSIVE = "perceiver-ar-"


def recognises(config: Json) -> bool:
    """Whether a config.json was written by the package."""
    return str(config.get("model_type", "")).startswith(("perceiver-io-", AUTOREGRESSIVE))


def load(directory: Path, options: LoadOptions = DEFAULT) -> LoadedCheckpoint:
    """Read a directory written by the package's `save_pretrained`.

    Raises:
        CheckpointError: Model type, settings or tensors do not fit.
    """
    path = directory / "config.json"
    raw = read_json(path)
    kind = KINDS.get(raw["model_type"])
    if kind is None:
        known = f"expected model_type {', '.join(KINDS)}, got {raw['model_type']!r}"
        autoregressive = "Perceiver AR is not supported; " if raw["model_type"].startswith(AUTOREGRESSIVE) else ""
        raise CheckpointError(f"{path}: {autoregressive}{known}")
    options.refuse(("image_size",), f"{path} holds the size of the model's inputs")
    where = f"{path}: model_config"
    model = read(raw.get("model_config"), MODEL, where)
    encoder = read(model["encoder"], kind.encoder, f"{where}.encoder")
    decoder = read(model["decoder"], kind.decoder, f"{where}.decoder")
    few_points(f"{where}.encoder", "image_shape", encoder.get("image_shape", ()))
    config = kind.config(model, encoder, decoder)
    module = filled(kind.build, config, read_tensors(find_weights(directory)), kind.rules, str(path))
    return LoadedCheckpoint(module, kind.family, config)
