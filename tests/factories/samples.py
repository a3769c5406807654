"""A small image classifier, and samples for it."""

from __future__ import annotations

import numpy as np

from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.patches import PatchClassifierConfig
from perceiver_runtime.tensors import Array

CROSS = CrossAttentionConfig(heads=1, qk_dim=16, v_dim=16)
PERCEIVER = PerceiverConfig(8, 32, CROSS, ProcessorConfig(blocks=1, layers=1, heads=4), CROSS)
CONFIG = PatchClassifierConfig(1, 16, 16, 4, 4, 16, 2, 16, 10, PERCEIVER)
SAMPLES = 60


def arrays(count: int = SAMPLES, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    pixels = random.standard_normal((count, 1, 16, 16), dtype=np.float32)
    return {"pixel_values": pixels, "logits": random.integers(0, 10, count)}
