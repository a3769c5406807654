"""Attention and normalisations that others wrote, in the form that the rules match."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx_ir as ir
import pytest
import torch
from factories.attention import FORMS, Sizes, component
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perceiver_exporters.component import Component
from perceiver_exporters.ir.graph import products
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.rules import REWRITE_RULES, Context, RuleOutcome, rewrite
from perceiver_exporters.rules.forms.attention_layout import ATTENTION_LAYOUT
from perceiver_exporters.rules.forms.layer_normalization import LAYER_NORMALIZATION
from perceiver_exporters.rules.forms.root_mean_square import ROOT_MEAN_SQUARE
from perceiver_exporters.rules.forms.scaled_queries import SCALED_QUERIES
from perceiver_exporters.rules.forms.softmax_maximum import SOFTMAX_MAXIMUM
from perceiver_exporters.rules.matchers.attention import attention_sites
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

from .conftest import SMALL, session

EXACT = 1e-6
NORMALISED = (LAYER_NORMALIZATION, ROOT_MEAN_SQUARE, SOFTMAX_MAXIMUM, SCALED_QUERIES, ATTENTION_LAYOUT)
Traced = tuple[ir.Model, Component, Profile]


@cache
def _traced(form: str) -> Traced:
    made, profile = component(form, Sizes())
    return trace(made, profile), made, profile


def _rewritten(
    traced: Traced, rules: object = NORMALISED, target: str = "cpu"
) -> tuple[ir.Model, dict[str, RuleOutcome]]:
    graph, made, profile = traced
    copy = graph.clone()
    outcomes = rewrite(SizedGraph(copy, made.inputs, profile), Context(TARGETS[target], "fp32"), rules)  # type: ignore[arg-type]
    return copy, {outcome.rule: outcome for outcome in outcomes}


def _feeds(made: Component, batch: int, tokens: int) -> dict[str, Array]:
    random = np.random.default_rng(batch)
    shapes = {spec.name: spec.resolve({"batch": batch, "tokens": tokens}) for spec in made.inputs}
    feeds = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if "keep" in feeds:
        feeds["keep"] = feeds["keep"] > -0.5  # type: ignore[assignment]
        feeds["keep"][:, 0] = True
    return feeds


def _distance(before: ir.Model, after: ir.Model, feeds: dict[str, Array]) -> float:
    old, new = session(before), session(after)
    given = {value.name: feeds[value.name] for value in old.get_inputs()}
    (a,), (b,) = old.run(None, given), new.run(None, given)
    return float(np.linalg.norm(b.astype(np.float64) - a) / np.linalg.norm(a))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_one_that_rules_match(form: str) -> None:
    traced = _traced(form)
    graph, outcomes = _rewritten(traced)
    (site,) = attention_sites(graph.graph)
    assert site.softmax
    assert outcomes["attention-layout"].after.flops <= outcomes["layer-normalization"].before.flops
    for batch, tokens in ((3, 7), (1, 2)):
        assert _distance(traced[0], graph, _feeds(traced[1], batch, tokens)) < EXACT


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", ["cpu", "cuda", "rtx"])
def test_all_rules_keep_the_function(form: str, target: str) -> None:
    traced = _traced(form)
    graph, outcomes = _rewritten(traced, REWRITE_RULES, target)
    assert _distance(traced[0], graph, _feeds(traced[1], 3, 7)) < 2 * EXACT
    last = list(outcomes.values())[-1]
    assert last.after.flops <= next(iter(outcomes.values())).before.flops


@pytest.mark.parametrize("form", FORMS)
def test_no_layout_is_left_between_the_products(form: str) -> None:
    """Heads are split once and merged once: no more Transposes than queries, keys, values and the result need."""
    graph, _ = _rewritten(_traced(form))
    moved = [node for node in graph.graph if node.op_type == "Transpose"]
    assert len(moved) <= 4 + (form == "stable")  # an output that einsum projects stays einsum's


def test_outputs_stay_the_same_at_random_sizes() -> None:
    @settings(max_examples=6, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        def size(low: int, high: int) -> int:
            return data.draw(st.integers(low, high))

        groups = size(1, 3)
        heads = groups * size(1, 3)
        sizes = Sizes(size(1, 6), size(2, 12), heads, size(1, 9), groups, size(2, 30), size(2, 30))
        form = data.draw(st.sampled_from(list(FORMS)))
        made, profile = component(form, sizes, dynamic=data.draw(st.booleans()))
        traced = trace(made, profile), made, profile
        graph, _ = _rewritten(traced, REWRITE_RULES)
        assert _distance(traced[0], graph, _feeds(made, 2, sizes.tokens)) < 1e-5

    run()


def test_keys_that_are_repeated_for_groups_are_not() -> None:
    graph, _ = _rewritten(_traced("grouped"))
    assert not [node for node in graph.graph if node.op_type == "Expand" and len(node.outputs[0].shape or ()) == 5]


def test_one_packed_layer_is_one_again_where_no_rule_took_its_parts() -> None:
    graph, outcomes = _rewritten(_traced("packed"), REWRITE_RULES)
    assert outcomes["packed-projections"].detail == "1 x 3 products into one"
    assert sum(node.inputs[0].name == "norm/LayerNormalization" for node in products(graph.graph)) == 1


@pytest.mark.parametrize(
    ("family", "names"), [("fourier", ("encoder", "processor_block", "decoder")), ("flow", ("encoder_fold", "decoder"))]
)
def test_own_models_have_the_form(subject, family: str, names: tuple[str, ...]) -> None:
    assert family in SMALL
    for name in names:
        _, outcomes = subject(family, name).rewritten(*NORMALISED)
        assert not any(outcome.applied for outcome in outcomes)


class _Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias, self.out = nn.Parameter(torch.rand(16)), nn.Parameter(torch.randn(16)), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x))

    def norm(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale


class _Quotient(_Norm):
    def norm(self, x: Tensor) -> Tensor:
        return self.scale * (x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6))


class _Operator(_Norm):
    def norm(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, (16,), self.scale, 1e-6)


class _Variance(_Norm):
    def norm(self, x: Tensor) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.scale + self.bias


class _VarianceAndMean(_Norm):
    def norm(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, -1, unbiased=False, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * self.scale


class _Unbiased(_Norm):
    def norm(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) * self.scale


def _norm(kind: type[_Norm]) -> Traced:
    torch.manual_seed(0)
    spec, profile = TensorSpec("x", "float32", ("batch", 5, 16)), Profile("default", {"batch": Range(1, 2, 8)})
    made = Component("norm", kind().eval(), (spec,), (TensorSpec("made", "float32", ("batch", 5, 8)),))
    return trace(made, profile), made, profile


def _optimised(graph: ir.Model, tmp_path) -> Iterator[str]:
    import onnx

    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    ort.InferenceSession(ir.to_proto(graph).SerializeToString(), options, ["CPUExecutionProvider"])
    yield from (node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


@pytest.mark.parametrize("kind", [_Norm, _Quotient, _Operator])
def test_onnxruntime_fuses_an_rms_norm(kind: type[_Norm], tmp_path) -> None:
    traced = _norm(kind)
    graph, outcomes = _rewritten(traced)
    assert outcomes["root-mean-square"].applied
    assert set(_optimised(graph, tmp_path)) == {"SimplifiedLayerNormalization", "MatMul", "Add"}
    assert _distance(traced[0], graph, _feeds(traced[1], 3, 0)) < EXACT


@pytest.mark.parametrize("kind", [_Variance, _VarianceAndMean])
def test_a_layer_norm_becomes_the_operator(kind: type[_Norm]) -> None:
    traced = _norm(kind)
    graph, outcomes = _rewritten(traced)
    assert outcomes["layer-normalization"].applied
    assert [node.op_type for node in graph.graph] == ["LayerNormalization", "MatMul", "Add"]
    assert _distance(traced[0], graph, _feeds(traced[1], 3, 0)) < EXACT


def test_another_variance_is_no_layer_norm() -> None:
    _, outcomes = _rewritten(_norm(_Unbiased))
    assert not outcomes["layer-normalization"].applied
    assert outcomes["root-mean-square"].detail == "no RMSNorm"
