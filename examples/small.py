"""Small models of the released kinds with random weights: examples run on them, with meaningless outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.released import RELEASED
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.export import export_bundle

_CROSS = CrossAttentionConfig(heads=1, qk_dim=32, v_dim=32)
_PERCEIVER = PerceiverConfig(16, 64, _CROSS, ProcessorConfig(blocks=1, layers=2, heads=4), _CROSS)
_DENSE = replace(_PERCEIVER, decoder=replace(_CROSS, query_residual=False))

SMALL: dict[str, dict[str, Any]] = {
    "language-perceiver": {"max_length": 256, "token_dim": 32, "query_dim": 32, "perceiver": _DENSE},
    "vision-perceiver-conv": {"height": 64, "width": 64, "bands": 8, "query_dim": 64, "perceiver": _PERCEIVER},
    "optical-flow-perceiver": {"height": 96, "width": 128, "token_dim": 16, "bands": 8, "perceiver": _DENSE},
    "multimodal-perceiver": {
        "frames": 4,
        "height": 32,
        "width": 32,
        "samples": 7680,
        "video_bands": 4,
        "video_resolution": (4, 8, 8),
        "audio_bands": 8,
        "label_dim": 32,
        "decoded_dim": 32,
        "perceiver": _DENSE,
    },
}
"""Fields that differ from the released model of that name."""


def export_small(released: str, bundle: Path) -> None:
    """Export a small model of the same kind as `released`."""
    torch.manual_seed(0)
    (family,) = (family for family in FAMILIES.values() if released in family.presets)
    config = replace(RELEASED[released], **SMALL[released])
    processing = family.processing(config) if family.processing else None
    model = Model(
        f"small {released}", family, config, family.build(config).eval(), pretrained=False, processing=processing
    )
    export_bundle(blueprint(model), bundle)
