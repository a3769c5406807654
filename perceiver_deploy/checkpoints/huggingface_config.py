"""What a Hugging Face Perceiver's config.json says, as the frozen configs of the reference models.

Numbers that the config does not hold (bands, widths of adapters, heads of decoders) are constants of the class in
transformers, and stand here once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.flow import FlowConfig
from perceiver_deploy.models.modalities import MultimodalConfig
from perceiver_deploy.models.pixels import ConvClassifierConfig, FourierClassifierConfig, LearnedClassifierConfig
from perceiver_deploy.models.positions import fourier_dim
from perceiver_deploy.models.text import MaskedLanguageModelConfig, SequenceClassifierConfig
from perceiver_runtime.errors import CheckpointError

Size = tuple[int, int]
Json = Mapping[str, Any]

DEFAULTS: Json = {
    "num_latents": 256,
    "d_latents": 1280,
    "d_model": 768,
    "num_blocks": 1,
    "num_self_attends_per_block": 26,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 8,
    "qk_channels": None,
    "v_channels": None,
    "cross_attention_shape_for_attention": "kv",
    "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1,
    "hidden_act": "gelu",
    "use_query_residual": True,
    "vocab_size": 262,
    "max_position_embeddings": 2048,
    "image_size": 56,
    "train_size": [368, 496],
    "num_frames": 16,
    "audio_samples_per_frame": 1920,
    "samples_per_patch": 16,
    "output_shape": [1, 16, 224, 224],
    "output_num_channels": 512,
    "_label_trainable_num_channels": 1024,
}
"""What a field means that config.json leaves out."""


def complete(config: Json) -> dict[str, Any]:
    """Fill in the defaults. Raises CheckpointError for settings that the reference models do not have."""
    full = {**DEFAULTS, **config}
    if full["hidden_act"] != "gelu":
        raise CheckpointError(f"config.json: expected hidden_act gelu, got {full['hidden_act']!r}; unsupported")
    width, values = full["d_latents"], full["v_channels"] or full["qk_channels"]
    if values is not None and values != width:
        raise CheckpointError(
            f"config.json: expected v_channels (or else qk_channels) equal to d_latents {width}, got {values}; "
            "the latents' residual needs it"
        )
    return full


def labels(config: Json) -> int:
    """Number of classes: as many as are named, else two."""
    named = config.get("id2label")
    return len(named) if named else int(config.get("num_labels", 2))


def label_names(config: Json) -> tuple[str, ...]:
    """Names of the classes in order, where the config gives them."""
    named = config.get("id2label") or {}
    return tuple(str(named[key]) for key in sorted(named, key=int))


def masked_language_model(config: Json, image_size: Size | None) -> MaskedLanguageModelConfig:
    """PerceiverForMaskedLM."""
    width = config["d_model"]
    decoder = CrossAttentionConfig(heads=8, qk_dim=8 * 32, v_dim=width, query_residual=False)
    return MaskedLanguageModelConfig(
        vocabulary=config["vocab_size"],
        max_length=config["max_position_embeddings"],
        token_dim=width,
        query_dim=width,
        perceiver=_perceiver(config, width, decoder),
    )


def sequence_classifier(config: Json, image_size: Size | None) -> SequenceClassifierConfig:
    """PerceiverForSequenceClassification."""
    return SequenceClassifierConfig(
        vocabulary=config["vocab_size"],
        max_length=config["max_position_embeddings"],
        token_dim=config["d_model"],
        query_dim=config["d_latents"],
        classes=labels(config),
        perceiver=_perceiver(config, config["d_model"], _class_decoder(config)),
    )


def learned_classifier(config: Json, image_size: Size | None) -> LearnedClassifierConfig:
    """PerceiverForImageClassificationLearned. Its positions belong to one size."""
    height, width = _pair(config["image_size"])
    return LearnedClassifierConfig(
        channels=3,
        height=height,
        width=width,
        pixel_dim=256,
        position_dim=256,
        query_dim=config["d_latents"],
        classes=labels(config),
        perceiver=_perceiver(config, 512, _class_decoder(config)),
    )


def fourier_classifier(config: Json, image_size: Size | None) -> FourierClassifierConfig:
    """PerceiverForImageClassificationFourier, 224 x 224 pixels unless told otherwise."""
    height, width = image_size or (224, 224)
    return FourierClassifierConfig(
        channels=3,
        height=height,
        width=width,
        bands=64,
        resolution=(224, 224),
        query_dim=config["d_latents"],
        classes=labels(config),
        perceiver=_perceiver(config, 3 + fourier_dim(2, 64), _class_decoder(config)),
    )


def conv_classifier(config: Json, image_size: Size | None) -> ConvClassifierConfig:
    """PerceiverForImageClassificationConvProcessing, 224 x 224 pixels unless told otherwise."""
    height, width = image_size or (224, 224)
    return ConvClassifierConfig(
        channels=3,
        height=height,
        width=width,
        conv_dim=64,
        bands=64,
        resolution=(56, 56),
        query_dim=config["d_latents"],
        classes=labels(config),
        perceiver=_perceiver(config, 64 + fourier_dim(2, 64), _class_decoder(config)),
    )


def optical_flow(config: Json, image_size: Size | None) -> FlowConfig:
    """PerceiverForOpticalFlow. The frame size is the one it was trained at."""
    height, width = _pair(config["train_size"])
    dim = 64 + fourier_dim(2, 64)
    decoder = _decoder(config, dim, query_residual=False)
    return FlowConfig(
        height=height,
        width=width,
        patch_dim=27,
        token_dim=64,
        bands=64,
        perceiver=_perceiver(config, dim, decoder),
    )


def multimodal(config: Json, image_size: Size | None) -> MultimodalConfig:
    """PerceiverForMultimodalAutoencoding. Input and output video have the size of `output_shape`."""
    frames, height, width = config["output_shape"][1:]
    resolution = (config["num_frames"], *_pair(config["image_size"]))
    classes, patch, audio_patch = labels(config), 4, config["samples_per_patch"]
    video, audio = fourier_dim(3, 32), fourier_dim(1, 192)
    input_dim = max(3 * patch**2 + video, audio_patch + audio, classes) + 4
    query_dim = max(video, audio, config["_label_trainable_num_channels"]) + 2
    return MultimodalConfig(
        frames=frames,
        channels=3,
        height=height,
        width=width,
        patch=patch,
        samples=config["num_frames"] * config["audio_samples_per_frame"],
        audio_patch=audio_patch,
        video_bands=32,
        video_resolution=resolution,
        audio_bands=192,
        label_dim=config["_label_trainable_num_channels"],
        classes=classes,
        decoded_dim=config["output_num_channels"],
        perceiver=_perceiver(config, input_dim, _decoder(config, query_dim, query_residual=False)),
        input_padding=4,
        query_padding=2,
    )


def _perceiver(config: Json, input_dim: int, decoder: CrossAttentionConfig) -> PerceiverConfig:
    latent_dim = config["d_latents"]
    cross = config["qk_channels"] or _attention_width(config, latent_dim, input_dim)
    own = config["qk_channels"] or latent_dim
    encoder = CrossAttentionConfig(
        heads=config["num_cross_attention_heads"],
        qk_dim=cross,
        v_dim=config["v_channels"] or cross,
        widening=config["cross_attention_widening_factor"],
        query_residual=bool(config["use_query_residual"]),
    )
    processor = ProcessorConfig(
        blocks=config["num_blocks"],
        layers=config["num_self_attends_per_block"],
        heads=config["num_self_attention_heads"],
        widening=config["self_attention_widening_factor"],
        qk_dim=own,
        v_dim=config["v_channels"] or own,
    )
    return PerceiverConfig(config["num_latents"], latent_dim, encoder, processor, decoder)


def _class_decoder(config: Json) -> CrossAttentionConfig:
    return _decoder(config, config["d_latents"], query_residual=True)


def _decoder(config: Json, query_dim: int, *, query_residual: bool) -> CrossAttentionConfig:
    width = _attention_width(config, query_dim, config["d_latents"])
    return CrossAttentionConfig(heads=1, qk_dim=width, v_dim=width, query_residual=query_residual)


def _attention_width(config: Json, query_dim: int, input_dim: int) -> int:
    """The width that queries and keys share where the config names none."""
    widths = {"q": query_dim, "kv": input_dim}
    which = config["cross_attention_shape_for_attention"]
    if which not in widths:
        raise CheckpointError(f"config.json: expected cross_attention_shape_for_attention q or kv, got {which!r}")
    return widths[which]


def _pair(size: Any) -> Size:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)
