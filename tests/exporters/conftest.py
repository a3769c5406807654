from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from factories.weights import randomise
from torch_threads import one_thread as one_thread

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.image_classifier import ImageClassifier
from perceiver_deploy.models.patches import PatchClassifierConfig
from perceiver_exporters import export
from perceiver_exporters.component import Blueprint
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime.manifest import Manifest, Source

FAMILY = FAMILIES["patch-classifier"]
CROSS = CrossAttentionConfig(heads=1, qk_dim=64, v_dim=64)
CONFIG = PatchClassifierConfig(
    channels=1,
    height=16,
    width=16,
    patch=4,
    stride=4,
    token_dim=32,
    bands=4,
    query_dim=48,
    classes=10,
    perceiver=PerceiverConfig(16, 64, CROSS, ProcessorConfig(blocks=2, layers=2, heads=4), CROSS),
)
Bundle = Callable[..., tuple[Path, Manifest]]


def build_model(seed: int = 0) -> ImageClassifier:
    return randomise(ImageClassifier(CONFIG), seed)


def build_blueprint(model: ImageClassifier) -> Blueprint:
    random = np.random.default_rng(0)
    return Blueprint(
        source=Source("toy", FAMILY.name, weights_sha256(model), dataclasses.asdict(CONFIG), pretrained=False),
        cut=FAMILY.cut(model),
        golden=(FAMILY.sample(CONFIG, 4, random), FAMILY.sample(CONFIG, 2, random)),
        calibration=tuple(FAMILY.sample(CONFIG, 32, random) for _ in range(2)),
        labels=tuple("abcdefghij"),
    )


@pytest.fixture(scope="session")
def model() -> ImageClassifier:
    return build_model()


@pytest.fixture(scope="session")
def blueprint(model: ImageClassifier) -> Blueprint:
    return build_blueprint(model)


@pytest.fixture(scope="session")
def traced(blueprint: Blueprint) -> dict[str, ir.Model]:
    return {c.name: trace(c, blueprint.cut.profile) for c in blueprint.cut.components}


@pytest.fixture
def graphs(traced: dict[str, ir.Model]) -> dict[str, ir.Model]:
    """Copies that a test may change."""
    return {name: graph.clone() for name, graph in traced.items()}


@pytest.fixture
def tracer(traced: dict[str, ir.Model]) -> export.Tracer:
    """Exports take the session's traces: tracing is deterministic (test_export shows it) and slow."""
    return lambda component, _profile, _opset: traced[component.name].clone()


@pytest.fixture
def bundle(blueprint: Blueprint, tracer: export.Tracer, tmp_path: Path) -> Bundle:
    """Export the toy model at a precision, from the session's traces."""

    def make(precision: str, **options: object) -> tuple[Path, Manifest]:
        path = tmp_path / precision
        given: dict[str, Any] = {"tracer": tracer, **options}
        return path, export.export_bundle(blueprint, path, precision, **given)

    return make
