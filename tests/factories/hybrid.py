"""Small hybrid models with random biases and normalisation, for every combination of parts."""

from __future__ import annotations

import torch
from factories.weights import randomise
from torch import Tensor

from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.hybrid import (
    ClassifierConfig,
    FeatureConfig,
    GeneratorConfig,
    Hybrid,
    HybridConfig,
    ImageConfig,
    RegressorConfig,
    TextConfig,
)

PERCEIVER = PerceiverConfig(
    latents=4,
    latent_dim=16,
    encoder=CrossAttentionConfig(heads=1, qk_dim=16, v_dim=16),
    processor=ProcessorConfig(blocks=2, layers=1, heads=2),
    decoder=CrossAttentionConfig(heads=1, qk_dim=16, v_dim=16),
)
IMAGE = ImageConfig(
    channels=3,
    height=16,
    width=16,
    widths=(8, 16),
    strides=(2, 2),
    global_dims=(24, 12),
    features=FeatureConfig("add", ("channel_attention", "frequency_attention", "channel_linear"), groups=2),
)
TEXT = TextConfig(
    vocabulary=40,
    length=24,
    embedding=10,
    hidden=7,
    layers=2,
    features=FeatureConfig("multiply", ("channel_attention",)),
)
CLASSIFIER = ClassifierConfig("kind", 5)
REGRESSOR = RegressorConfig("score", 2, scale=0.5, offset=0.25)
GENERATOR = GeneratorConfig("name", vocabulary=30, length=12, embedding=6, hidden=20, layers=2)
BOTH = HybridConfig(
    interaction_dim=20,
    query_dim=12,
    perceiver=PERCEIVER,
    image=IMAGE,
    text=TEXT,
    optional=("image", "text"),
    classifiers=(CLASSIFIER,),
    regressors=(REGRESSOR,),
    generators=(GENERATOR,),
)


def build(config: HybridConfig, seed: int = 0) -> Hybrid:
    """A model of that config with random everything."""
    return randomise(Hybrid(config), seed)


def pixels(batch: int, config: ImageConfig = IMAGE, seed: int = 0) -> Tensor:
    """Images (batch, C, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, config.channels, config.height, config.width, generator=generator)


def ids(lengths: list[int], config: TextConfig = TEXT, width: int | None = None, seed: int = 0) -> Tensor:
    """Ids (B, width or the longest), padded with 0."""
    generator = torch.Generator().manual_seed(seed)
    columns = width or max(lengths)
    table = torch.randint(1, config.vocabulary, (len(lengths), columns), generator=generator)
    return table * (torch.arange(table.shape[1]) < torch.tensor(lengths)[:, None])
