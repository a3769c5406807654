"""A perceiver-io config.json as the frozen configs of the reference models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.flow import FlowConfig
from perceiver_deploy.models.pixels import FourierClassifierConfig, RepeatedClassifierConfig
from perceiver_deploy.models.positions import fourier_dim
from perceiver_deploy.models.text import MaskedLanguageModelConfig, SequenceClassifierConfig
from perceiver_runtime.errors import CheckpointError

Json = Mapping[str, Any]


def repeated(encoder: Json) -> bool:
    """Whether inputs are read more than once, or the first block has weights of its own."""
    own_block = encoder["num_self_attention_blocks"] > 1 and not encoder["first_self_attention_block_shared"]
    return encoder["num_cross_attention_layers"] > 1 or own_block


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
    return FourierClassifierConfig(**_image(model, encoder, decoder))


def repeated_classifier(model: Json, encoder: Json, decoder: Json) -> RepeatedClassifierConfig:
    """perceiver-io-image-classifier that is `repeated`."""
    if encoder["num_cross_attention_layers"] > encoder["num_self_attention_blocks"]:
        raise CheckpointError(
            "config.json: expected num_cross_attention_layers of at most num_self_attention_blocks "
            f"{encoder['num_self_attention_blocks']}, got {encoder['num_cross_attention_layers']}"
        )
    return RepeatedClassifierConfig(
        **_image(model, encoder, decoder),
        readings=encoder["num_cross_attention_layers"],
        own_first_reading=not encoder["first_cross_attention_layer_shared"],
        own_first_block=not encoder["first_self_attention_block_shared"],
    )


def _image(model: Json, encoder: Json, decoder: Json) -> dict[str, Any]:
    query_dim = _single_query(decoder)
    height, width, channels = encoder["image_shape"]
    bands = encoder["num_frequency_bands"]
    return {
        "channels": channels,
        "height": height,
        "width": width,
        "bands": bands,
        "resolution": (height, width),
        "query_dim": query_dim,
        "classes": decoder["num_classes"],
        "perceiver": _perceiver(model, encoder, decoder, channels + fourier_dim(2, bands), query_dim),
    }


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
