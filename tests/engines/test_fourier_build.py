"""REAL: a small classifier of large images, whose activations need gigabytes, builds with default options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from perceiver_deploy.api.export import export
from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.released import RELEASED
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.engines import build
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.tensorrt.sidecar import read_sidecar, sidecar_path
from perceiver_runtime.tensors import Range

CROSS = CrossAttentionConfig(heads=1, qk_dim=64, v_dim=64)
PERCEIVER = PerceiverConfig(32, 64, CROSS, ProcessorConfig(blocks=2, layers=2, heads=4), CROSS)


def test_a_small_classifier_of_large_images_builds_with_default_options(tmp_path: Path) -> None:
    config = replace(RELEASED["vision-perceiver-fourier"], query_dim=64, classes=10, perceiver=PERCEIVER)
    torch.manual_seed(0)
    family = FAMILIES["image-classifier-fourier"]
    model = Model("small", family, config, family.build(config).eval(), False)
    assert (config.height, config.width) == (224, 224)
    assert sum(p.numel() for p in model.module.parameters()) < 300_000
    made = replace(blueprint(model), golden=())  # what is compared elsewhere takes most of an export's time
    manifest = export(made, tmp_path / "bundle", target="rtx")
    assert dict(manifest.profiles[0].dimensions) == {"batch": Range(1, 1, 8)}
    outcome = build(tmp_path / "bundle", "rtx")
    assert len(outcome.engines) == 3
    sidecar = read_sidecar(load_bundle(tmp_path / "bundle").file(sidecar_path("rtx", "encoder")))
    assert sidecar.profiles[0].dimensions["batch"].max == 8
    assert np.prod((8, 224, 224, 261)) * 4 * 2 < outcome.preflight.memory.workspace < sidecar.workspace_bytes
