"""The hybrid family: convolutional and recurrent encoders, attention among channels and frequencies, latents, heads."""

from perceiver_deploy.models.hybrid.config import (
    ClassifierConfig,
    FeatureConfig,
    GeneratorConfig,
    HybridConfig,
    ImageConfig,
    RegressorConfig,
    TextConfig,
)
from perceiver_deploy.models.hybrid.model import Hybrid, Trunk, freeze_trunk

__all__ = [
    "ClassifierConfig",
    "FeatureConfig",
    "GeneratorConfig",
    "Hybrid",
    "HybridConfig",
    "ImageConfig",
    "RegressorConfig",
    "TextConfig",
    "Trunk",
    "freeze_trunk",
]
