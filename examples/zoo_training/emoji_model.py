"""The recipe of the shipped emoji model: sizes of its trunk and heads, and how long each stage trains."""

from __future__ import annotations

from perceiver_deploy.datasets.emoji import LENGTH, SIZE, START, STOP, VOCABULARY
from perceiver_deploy.datasets.emoji.kinds import KINDS
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.hybrid import (
    ClassifierConfig,
    FeatureConfig,
    GeneratorConfig,
    HybridConfig,
    ImageConfig,
    RegressorConfig,
    TextConfig,
)
from zoo_training.loop import TrainingConfig

NAME, KIND, MATCH, VERSION = "name", "kind", "match", "version"
MODEL = HybridConfig(
    interaction_dim=64,
    query_dim=64,
    perceiver=PerceiverConfig(
        latents=8,
        latent_dim=96,
        encoder=CrossAttentionConfig(heads=1, qk_dim=64, v_dim=64),
        processor=ProcessorConfig(blocks=2, layers=1, heads=4),
        decoder=CrossAttentionConfig(heads=1, qk_dim=64, v_dim=64),
    ),
    image=ImageConfig(
        channels=3,
        height=SIZE,
        width=SIZE,
        widths=(24, 48, 64),
        strides=(2, 2, 1),
        global_dims=(64,),
        features=FeatureConfig("add", ("channel_attention", "frequency_attention", "channel_linear")),
    ),
    text=TextConfig(vocabulary=VOCABULARY, length=LENGTH, embedding=24, hidden=40, cell="gru"),
    optional=("image", "text"),
    classifiers=(ClassifierConfig(KIND, len(KINDS)), ClassifierConfig(MATCH, 2)),
    regressors=(RegressorConfig(VERSION, scale=4.0, offset=5.0),),
    generators=(
        GeneratorConfig(
            NAME, vocabulary=VOCABULARY, length=LENGTH + 1, embedding=24, hidden=128, start=START, stop=STOP
        ),
    ),
)
TRUNK_TRAINING = TrainingConfig(epochs=120, batch=64, learning_rate=3e-3, max_shift=1)
HEAD_TRAINING = TrainingConfig(epochs=30, batch=64, learning_rate=1e-3, max_shift=1)
