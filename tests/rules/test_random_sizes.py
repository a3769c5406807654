"""Every rewrite rule keeps the outputs of graphs of random sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from factories.families import SMALL as FAMILY_MODELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perceiver_deploy.models.config import PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.flow import FlowConfig
from perceiver_deploy.models.pixels import ConvClassifierConfig, FourierClassifierConfig
from perceiver_deploy.models.text import MaskedLanguageModelConfig, SequenceClassifierConfig
from perceiver_exporters.rules import REWRITE_RULES

from .conftest import cross, subjects
from .test_forms import NORMALISED

CLOSE = 1e-5
"""Relative L2: sums of few addends in another order, in FP32, some of them nearly cancelling."""
TARGETS = {"attention-form": ("cuda", "fp16"), "padded-channels": ("rtx", "fp16")}
"""Target and precision for which a rule applies at these sizes, if not (cpu, fp32)."""
AFTER = {"constant-sum": ("constant-query",)}
"""Rules whose result another rule needs."""
ALL = frozenset(rule.name for rule in REWRITE_RULES)
Draw = Callable[[st.SearchStrategy[int]], int]


def size(draw: Draw, low: int, high: int) -> int:
    return draw(st.integers(low, high))


def perceiver(draw: Draw, heads: int = 1, **decoder: Any) -> PerceiverConfig:
    """Few latents and heads; the latents' width is a multiple of 8, as fused attention needs."""
    latents, latent_dim = size(draw, 2, 12), 8 * heads * size(draw, 1, 4)
    reads, answers = ((4 * heads * size(draw, 1, 8), 4 * heads * size(draw, 1, 8)) for _ in range(2))
    layer = ProcessorConfig(blocks=1, layers=1, heads=heads)
    return PerceiverConfig(latents, latent_dim, cross(heads, *reads), layer, cross(heads, *answers, **decoder))


def fourier(draw: Draw) -> FourierClassifierConfig:
    h, w, bands = size(draw, 3, 9), size(draw, 3, 9), size(draw, 1, 4)
    return FourierClassifierConfig(size(draw, 1, 3), h, w, bands, (h, w), size(draw, 4, 40), 5, perceiver(draw))


def conv(draw: Draw) -> ConvClassifierConfig:
    h, w, bands = size(draw, 3, 9), size(draw, 3, 9), size(draw, 1, 4)
    maps, query = size(draw, 2, 9), size(draw, 4, 40)
    return ConvClassifierConfig(3, 4 * h, 4 * w, maps, bands, (h, w), query, 5, perceiver(draw))


def language(draw: Draw) -> MaskedLanguageModelConfig:
    width = size(draw, 4, 40)
    inner = perceiver(draw, heads=2, query_residual=False)
    return MaskedLanguageModelConfig(size(draw, 5, 50), size(draw, 3, 20), width, width, inner)


def texts(draw: Draw) -> SequenceClassifierConfig:
    widths = size(draw, 4, 40), size(draw, 4, 40)
    return SequenceClassifierConfig(size(draw, 5, 50), size(draw, 3, 20), *widths, 3, perceiver(draw))


def flow(draw: Draw) -> FlowConfig:
    h, w, bands = size(draw, 3, 9), size(draw, 3, 9), size(draw, 1, 4)
    return FlowConfig(h, w, 27, size(draw, 4, 20), bands, perceiver(draw, query_residual=False))


def multimodal(draw: Draw) -> Any:
    sizes = {name: size(draw, 5, 40) for name in ("label_dim", "decoded_dim")}
    return replace(FAMILY_MODELS["multimodal-autoencoder"], audio_bands=size(draw, 1, 4), **sizes)


MODELS: dict[str, tuple[str, Callable[[Draw], Any], tuple[str, ...], set[str]]] = {
    "fourier": (
        "image-classifier-fourier",
        fourier,
        ("encoder", "processor_block"),
        {"constant-query", "separable-positions", "absorbed-attention", "padded-channels", "packed-projections"},
    ),
    "conv": (
        "image-classifier-conv",
        conv,
        ("encoder", "processor_block"),
        {"constant-sum", "softmax-bias", "attention-form"},
    ),
    "language": ("masked-language-model", language, ("encoder", "decoder"), {"gathered-query", "token-tables"}),
    "texts": ("sequence-classifier", texts, ("encoder", "decoder"), {"folded-output"}),
    "flow": ("optical-flow", flow, ("encoder_fold", "decoder"), {"separable-queries", "folded-head"}),
    "multimodal": ("multimodal-autoencoder", multimodal, ("image_decoder",), {"gathered-scores"}),
}
"""Family, strategy of its config, components, and rules that apply to at least one of them."""
ELSEWHERE = {"constant-product", "unmasked-attention", *(rule.name for rule in NORMALISED)}
"""Rules on graphs that no model of these has: see their own tests."""


def test_every_rule_is_listed() -> None:
    listed = set[str]().union(*(rules for *_, rules in MODELS.values()))
    assert listed | ELSEWHERE == ALL


@pytest.mark.parametrize("model", MODELS)
def test_outputs_stay_the_same_at_random_sizes(model: str) -> None:
    family, config, components, expected = MODELS[model]
    applied: set[str] = set()

    @settings(max_examples=2, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        for subject in subjects(family, config(data.draw), *components):
            for name in (*sorted(expected), "all"):
                target, precision = TARGETS.get(name, ("cpu", "fp32"))
                wanted = ALL if name == "all" else {name, *AFTER.get(name, ())}
                rules = [rule for rule in REWRITE_RULES if rule.name in wanted]
                graph, outcomes = subject.rewritten(*rules, target=target, precision=precision)
                found = {outcome.rule for outcome in outcomes if outcome.applied}
                assert not found or subject.distance(graph) < CLOSE, (subject.name, found)
                applied.update(found)

    run()
    assert expected <= applied
