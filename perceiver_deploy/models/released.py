"""The sizes of the released Perceiver IO models, by the names they were released under (Jaegle et al. 2021)."""

from __future__ import annotations

from typing import Any

from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.flow import FlowConfig
from perceiver_deploy.models.modalities import MultimodalConfig
from perceiver_deploy.models.pixels import ConvClassifierConfig, FourierClassifierConfig, LearnedClassifierConfig
from perceiver_deploy.models.text import MaskedLanguageModelConfig, SequenceClassifierConfig


def language(decoder: CrossAttentionConfig) -> PerceiverConfig:
    """256 latents of 1280, 26 layers, read from 2048 bytes of width 768."""
    return PerceiverConfig(
        latents=256,
        latent_dim=1280,
        encoder=CrossAttentionConfig(heads=8, qk_dim=256, v_dim=1280),
        processor=ProcessorConfig(blocks=1, layers=26, heads=8, qk_dim=256, v_dim=1280),
        decoder=decoder,
    )


def vision(input_dim: int) -> PerceiverConfig:
    """512 latents of 1024, one block of 6 layers applied 8 times, one head where inputs are read."""
    return PerceiverConfig(
        latents=512,
        latent_dim=1024,
        encoder=CrossAttentionConfig(heads=1, qk_dim=input_dim, v_dim=input_dim),
        processor=ProcessorConfig(blocks=8, layers=6, heads=8, qk_dim=1024, v_dim=1024),
        decoder=CrossAttentionConfig(heads=1, qk_dim=1024, v_dim=1024),
    )


def dense(latents: int, layers: int, heads: int, input_dim: int) -> PerceiverConfig:
    """Latents of 512 that answer queries at every point of their inputs, without the queries' residual."""
    return PerceiverConfig(
        latents=latents,
        latent_dim=512,
        encoder=CrossAttentionConfig(heads=1, qk_dim=input_dim, v_dim=input_dim),
        processor=ProcessorConfig(blocks=1, layers=layers, heads=heads, qk_dim=512, v_dim=512),
        decoder=CrossAttentionConfig(heads=1, qk_dim=512, v_dim=512, query_residual=False),
    )


RELEASED: dict[str, Any] = {
    "language-perceiver": MaskedLanguageModelConfig(
        vocabulary=262,
        max_length=2048,
        token_dim=768,
        query_dim=768,
        perceiver=language(CrossAttentionConfig(heads=8, qk_dim=256, v_dim=768, query_residual=False)),
    ),
    "language-perceiver-classifier": SequenceClassifierConfig(
        vocabulary=262,
        max_length=2048,
        token_dim=768,
        query_dim=1280,
        classes=2,
        perceiver=language(CrossAttentionConfig(heads=1, qk_dim=1280, v_dim=1280)),
    ),
    "vision-perceiver-learned": LearnedClassifierConfig(
        channels=3,
        height=224,
        width=224,
        pixel_dim=256,
        position_dim=256,
        query_dim=1024,
        classes=1000,
        perceiver=vision(512),
    ),
    "vision-perceiver-fourier": FourierClassifierConfig(
        channels=3,
        height=224,
        width=224,
        bands=64,
        resolution=(224, 224),
        query_dim=1024,
        classes=1000,
        perceiver=vision(261),
    ),
    "vision-perceiver-conv": ConvClassifierConfig(
        channels=3,
        height=224,
        width=224,
        conv_dim=64,
        bands=64,
        resolution=(56, 56),
        query_dim=1024,
        classes=1000,
        perceiver=vision(322),
    ),
    "optical-flow-perceiver": FlowConfig(
        height=368,
        width=496,
        patch_dim=27,
        token_dim=64,
        bands=64,
        perceiver=dense(latents=2048, layers=24, heads=16, input_dim=322),
    ),
    "multimodal-perceiver": MultimodalConfig(
        frames=16,
        channels=3,
        height=224,
        width=224,
        patch=4,
        samples=30720,
        audio_patch=16,
        video_bands=32,
        video_resolution=(16, 56, 56),
        audio_bands=192,
        label_dim=1024,
        classes=700,
        decoded_dim=512,
        perceiver=dense(latents=784, layers=8, heads=8, input_dim=704),
    ),
}
