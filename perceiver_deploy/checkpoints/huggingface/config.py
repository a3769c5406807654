"""A Hugging Face Perceiver's config.json as the frozen configs of the reference models.

Numbers that are not in the config (bands, widths of adapters, heads of decoders) are constants of the class in
transformers, and are defined here.
"""

from __future__ import annotations

from perceiver_deploy.checkpoints.fields import divisible
from perceiver_deploy.checkpoints.huggingface.fields import RELEASED_SIZE, Json, Size, pair
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.flow import FlowConfig
from perceiver_deploy.models.modalities import MultimodalConfig
from perceiver_deploy.models.pixels import ConvClassifierConfig, FourierClassifierConfig, LearnedClassifierConfig
from perceiver_deploy.models.positions import fourier_dim
from perceiver_deploy.models.text import MaskedLanguageModelConfig, SequenceClassifierConfig
from perceiver_runtime.errors import CheckpointError


def labels(config: Json) -> int:
    """Number of classes: the number of names, else the config's number, else two.

    Raises CheckpointError if both are given and differ: versions of transformers disagree on which counts.
    """
    named, given = len(config["id2label"]), config["num_labels"]
    if named and given is not None and named != given:
        raise CheckpointError(
            f"{config['where']}: expected as many names in id2label as num_labels says, got {named} names and "
            f"num_labels {given}; correct the wrong one"
        )
    return named or given or 2


def masked_language_model(config: Json, image_size: Size | None) -> MaskedLanguageModelConfig:
    """PerceiverForMaskedLM."""
    width = config["d_model"]
    divisible(config["where"], ("d_model", width), ("the decoder's heads", 8))
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
    height, width = pair(config["image_size"])
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
    """PerceiverForImageClassificationFourier, which takes images of any size."""
    height, width = image_size or RELEASED_SIZE
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
    """PerceiverForImageClassificationConvProcessing, which takes images of any size that leaves a token."""
    height, width = image_size or RELEASED_SIZE
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
    height, width = pair(config["train_size"])
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
    where, (frames, height, width) = config["where"], config["output_shape"][1:]
    resolution = (config["num_frames"], *pair(config["image_size"]))
    classes, patch, audio_patch = labels(config), 4, config["samples_per_patch"]
    samples = config["num_frames"] * config["audio_samples_per_frame"]
    divisible(where, ("output_shape's height", height), ("the patch", patch))
    divisible(where, ("output_shape's width", width), ("the patch", patch))
    divisible(where, ("num_frames x audio_samples_per_frame", samples), ("samples_per_patch", audio_patch))
    video, audio = fourier_dim(3, 32), fourier_dim(1, 192)
    input_dim = max(3 * patch**2 + video, audio_patch + audio, classes) + 4
    query_dim = max(video, audio, config["_label_trainable_num_channels"]) + 2
    return MultimodalConfig(
        frames=frames,
        channels=3,
        height=height,
        width=width,
        patch=patch,
        samples=samples,
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
    widths = {"qk_channels, or else the cross-attention's width": cross, "v_channels": config["v_channels"] or cross}
    for name, width in widths.items():
        divisible(config["where"], (name, width), ("num_cross_attention_heads", config["num_cross_attention_heads"]))
    for name, width in {"qk_channels, or else d_latents": own, "v_channels": config["v_channels"] or own}.items():
        divisible(config["where"], (name, width), ("num_self_attention_heads", config["num_self_attention_heads"]))
    encoder = CrossAttentionConfig(
        heads=config["num_cross_attention_heads"],
        qk_dim=cross,
        v_dim=config["v_channels"] or cross,
        widening=config["cross_attention_widening_factor"],
        query_residual=config["use_query_residual"],
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
    """Default width of queries and keys."""
    return {"q": query_dim, "kv": input_dim}[config["cross_attention_shape_for_attention"]]
