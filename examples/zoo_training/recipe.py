"""The recipe of the shipped classifier: its sizes, its initial weights, and how long it trains."""

from __future__ import annotations

import torch
from torch import nn

from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.image_classifier import ImageClassifier
from perceiver_deploy.models.patches import PatchClassifierConfig
from zoo_training.loop import TrainingConfig

FAMILY = "patch-classifier"
DATASET = "fashion-mnist"

MODEL = PatchClassifierConfig(
    channels=1,
    height=28,
    width=28,
    patch=4,
    stride=3,
    token_dim=64,
    bands=6,
    query_dim=96,
    classes=10,
    perceiver=PerceiverConfig(
        latents=16,
        latent_dim=96,
        encoder=CrossAttentionConfig(heads=4, qk_dim=96, v_dim=96, widening=2),
        processor=ProcessorConfig(blocks=2, layers=2, heads=4, widening=2),
        decoder=CrossAttentionConfig(heads=4, qk_dim=96, v_dim=96, widening=2),
    ),
)

TRAINING = TrainingConfig()


def build() -> nn.Module:
    """The classifier with every linear layer drawn at std 1/sqrt(fan_in) (LeCun).

    At the released models' std of 0.02 a model as narrow as this one starts with all latents alike: after 300
    steps it classifies 58% instead of 80% of the test images.
    """
    module = ImageClassifier(MODEL)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return module
