"""One small model of every family, with real biases and random inputs: what tests export when size does not matter.

A family without an entry in `SMALL` fails the tests that walk over all families.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from factories.hybrid import BOTH
from factories.weights import randomise
from torch import nn

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.classic import ClassicConfig, ClassicIOConfig, ClassicLanguageModelConfig
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.patches import PatchClassifierConfig
from perceiver_deploy.models.pixels import RepeatedClassifierConfig
from perceiver_deploy.models.released import RELEASED
from perceiver_exporters.component import Cut
from perceiver_runtime.tensors import Array

_CROSS = CrossAttentionConfig(heads=2, qk_dim=32, v_dim=32)
_PERCEIVER = PerceiverConfig(16, 64, _CROSS, ProcessorConfig(blocks=2, layers=2, heads=4), _CROSS)
_DENSE = replace(_PERCEIVER, decoder=replace(_CROSS, query_residual=False))
_IMAGE = {"height": 16, "width": 20, "query_dim": 32, "classes": 10, "perceiver": _PERCEIVER}
_TEXT = {"vocabulary": 50, "max_length": 24, "token_dim": 32, "query_dim": 32}


def _released(name: str, **sizes: Any) -> Any:
    return replace(RELEASED[name], **sizes)


SMALL: Mapping[str, Any] = {
    "patch-classifier": PatchClassifierConfig(1, 28, 28, 4, 2, 24, 4, 32, 10, _PERCEIVER),
    "hybrid": BOTH,
    "masked-language-model": _released("language-perceiver", **_TEXT, perceiver=_DENSE),
    "sequence-classifier": _released("language-perceiver-classifier", **_TEXT, classes=3, perceiver=_PERCEIVER),
    "image-classifier-learned": _released("vision-perceiver-learned", **_IMAGE, pixel_dim=16, position_dim=16),
    "image-classifier-fourier": _released("vision-perceiver-fourier", **_IMAGE, bands=4, resolution=(16, 20)),
    "image-classifier-repeated": RepeatedClassifierConfig(
        3, 16, 20, 4, (16, 20), 32, 10, replace(_PERCEIVER, processor=ProcessorConfig(4, 1, 4)), 2, own_first_block=True
    ),
    "image-classifier-conv": _released(
        "vision-perceiver-conv", **{**_IMAGE, "height": 32, "width": 40}, conv_dim=16, bands=4, resolution=(8, 10)
    ),
    "optical-flow": _released("optical-flow-perceiver", height=16, width=24, token_dim=16, bands=4, perceiver=_DENSE),
    "multimodal-autoencoder": _released(
        "multimodal-perceiver",
        frames=4,
        height=16,
        width=16,
        samples=64,
        video_bands=2,
        video_resolution=(4, 4, 4),
        audio_bands=3,
        label_dim=20,
        classes=7,
        decoded_dim=32,
        perceiver=_DENSE,
    ),
    "classic-perceiver": ClassicConfig(
        (6, 8), 3, 4, 10.0, 16, 32, _CROSS, ProcessorConfig(blocks=2, layers=2, heads=4), 5, tied=True
    ),
    "classic-perceiver-io": ClassicIOConfig(24, 20, 5, _PERCEIVER),
    "classic-language-model": ClassicLanguageModelConfig(50, 24, 32, _PERCEIVER),
}


@dataclass(frozen=True)
class SmallModel:
    """A module with random weights, biases and normalisation, cut into components, and feeds for it."""

    family: str
    module: nn.Module
    cut: Cut
    feeds: Mapping[str, Array]


def small_model(family: str, seed: int = 0) -> SmallModel:
    """The small model of a family."""
    entry, config = FAMILIES[family], SMALL[family]
    module = randomise(entry.build(config), seed)
    return SmallModel(family, module, entry.cut(module), entry.sample(config, 2, np.random.default_rng(seed)))
