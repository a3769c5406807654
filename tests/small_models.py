"""One small model of every family, with real biases and random inputs: what tests export when size does not matter.

A family without an entry in `SMALL` fails the tests that walk over all families.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import hybrid_models
import torch
from torch import nn

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.image import PatchClassifierConfig
from perceiver_exporters.component import Cut
from perceiver_runtime.tensors import Array

_CROSS = CrossAttentionConfig(heads=2, qk_dim=32, v_dim=32)
_PERCEIVER = PerceiverConfig(16, 64, _CROSS, ProcessorConfig(blocks=2, layers=2, heads=4), _CROSS)
SMALL: Mapping[str, Any] = {
    "hybrid": hybrid_models.BOTH,
    "patch-classifier": PatchClassifierConfig(1, 28, 28, 4, 2, 24, 4, 32, 10, _PERCEIVER),
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
    torch.manual_seed(seed)
    entry, config = FAMILIES[family], SMALL[family]
    module = entry.build(config).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * (0.2 if "norm" in name else 0.1))
    return SmallModel(family, module, entry.cut(module), entry.sample(config, 2, np.random.default_rng(seed)))
