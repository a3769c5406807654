from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from factories.families import SMALL as FAMILY_MODELS
from factories.weights import randomise
from torch_threads import one_thread as one_thread

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.flow import FlowConfig
from perceiver_deploy.models.pixels import ConvClassifierConfig, FourierClassifierConfig
from perceiver_deploy.models.text import MaskedLanguageModelConfig, SequenceClassifierConfig
from perceiver_exporters.component import Cut
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.reference import Reference
from perceiver_exporters.rules import Context, RewriteRule, RuleOutcome, rewrite
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.tensors import Array

import onnxruntime as ort

EXACT = 2e-6
"""Relative L2 between a graph and its rewrite: sums in another order, in FP32."""


def cross(heads: int, qk: int, v: int, **options: Any) -> CrossAttentionConfig:
    return CrossAttentionConfig(heads, qk, v, **options)


def perceiver(encoder: CrossAttentionConfig, decoder: CrossAttentionConfig) -> PerceiverConfig:
    return PerceiverConfig(16, 64, encoder, ProcessorConfig(blocks=2, layers=1, heads=4), decoder)


SMALL: dict[str, tuple[str, Any]] = {
    "fourier": (
        "image-classifier-fourier",
        FourierClassifierConfig(3, 8, 10, 4, (8, 10), 48, 10, perceiver(cross(1, 21, 21), cross(1, 64, 64))),
    ),
    "conv": (
        "image-classifier-conv",
        ConvClassifierConfig(3, 40, 44, 8, 4, (10, 11), 48, 10, perceiver(cross(1, 26, 26), cross(2, 64, 64))),
    ),
    "wide conv": (
        "image-classifier-conv",
        ConvClassifierConfig(3, 40, 44, 8, 4, (10, 11), 48, 10, perceiver(cross(1, 26, 8), cross(2, 64, 64))),
    ),
    "language": (
        "masked-language-model",
        MaskedLanguageModelConfig(50, 20, 32, 32, perceiver(cross(4, 32, 64), cross(4, 32, 32, query_residual=False))),
    ),
    "texts": (
        "sequence-classifier",
        SequenceClassifierConfig(50, 20, 32, 48, 3, perceiver(cross(4, 32, 64), cross(1, 64, 64))),
    ),
    "flow": (
        "optical-flow",
        FlowConfig(18, 12, 27, 16, 4, perceiver(cross(1, 34, 34), cross(1, 64, 64, query_residual=False))),
    ),
    "multimodal": ("multimodal-autoencoder", FAMILY_MODELS["multimodal-autoencoder"]),
    "narrow multimodal": ("multimodal-autoencoder", replace(FAMILY_MODELS["multimodal-autoencoder"], decoded_dim=8)),
}


@dataclass(frozen=True)
class Subject:
    """A component of a small model with random weights, its graph as traced, and its reference inputs."""

    name: str
    cut: Cut
    graph: ir.Model
    feeds: list[dict[str, Array]]

    def rewritten(
        self, *rules: RewriteRule, target: str = "cpu", precision: str = "fp32"
    ) -> tuple[ir.Model, tuple[RuleOutcome, ...]]:
        component, graph = self.cut.component(self.name), self.graph.clone()
        sized = SizedGraph(graph, component.inputs, self.cut.profile)
        return graph, rewrite(sized, Context(TARGETS[target], precision), rules)

    def distance(self, graph: ir.Model, feeds: list[dict[str, Array]] | None = None) -> float:
        """Largest relative L2 between what the two graphs make of the reference inputs, or of others."""
        before, after = session(self.graph), session(graph)
        return max(
            float(np.linalg.norm(b.astype(np.float64) - a) / max(np.linalg.norm(a.astype(np.float64)), 1e-12))
            for each in feeds or self.feeds
            for a, b in zip(before.run(None, each), after.run(None, each), strict=True)
        )


def session(graph: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(ir.to_proto(graph).SerializeToString(), options, ["CPUExecutionProvider"])


def subjects(family_name: str, config: Any, *names: str) -> Iterator[Subject]:
    """Components of a model with random weights; batch 3 and, of chunked steps, every chunk."""
    family = FAMILIES[family_name]
    cut = family.cut(randomise(family.build(config)))
    feeds = dict(family.sample(config, 3, np.random.default_rng(0)))
    if "attention_mask" in feeds:
        feeds["attention_mask"] = feeds["attention_mask"] * np.array([[1], [1], [0]])  # a row of padding alone
    calls = list(Reference(cut).calls(feeds))
    for component in cut.components:
        if not names or component.name in names:
            inputs = [c.inputs for c in calls if c.component == component.name]
            contiguous = [{n: np.ascontiguousarray(x) for n, x in each.items()} for each in inputs]
            yield Subject(component.name, cut, trace(component, cut.profile), contiguous)


@pytest.fixture(scope="session")
def subject() -> Callable[[str, str], Subject]:
    """Trace a component of one of the small models, once."""
    made: dict[tuple[str, str], Subject] = {}

    def get(model: str, name: str) -> Subject:
        if (model, name) not in made:
            (made[model, name],) = subjects(*SMALL[model], name)
        return made[model, name]

    return get
