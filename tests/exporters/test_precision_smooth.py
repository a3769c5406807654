"""Scale migration: the same bits in FP32, less error in INT8 where channels stand out, and only where it helps."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from perceiver_exporters.component import Blueprint
from perceiver_exporters.precision import PRECISIONS, Measured
from perceiver_exporters.precision.calibration.calibrate import calibrate
from perceiver_exporters.precision.integers.plan import ComponentPlan
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.precision.integers.smooth import divisors, smooth
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.static_integers import quantize
from perceiver_exporters.samples import make_samples
from perceiver_runtime.golden import ComponentCall
from perceiver_runtime.measure.compare import relative_l2

from .conftest import CONFIG, FAMILY, build_blueprint, build_model

import onnxruntime as ort

LAYERS = [
    f"{i}.{layer}" for i in range(2) for layer in ("attention.query", "attention.key", "attention.value", "mlp.0")
]


@pytest.fixture(scope="module")
def loud() -> Blueprint:
    """A model whose normalisations amplify two channels fiftyfold."""
    model = build_model(3)
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter[3] *= 50
            parameter[7] *= 50
    return build_blueprint(model)


@pytest.fixture(scope="module")
def loud_graphs(loud: Blueprint) -> dict[str, ir.Model]:
    from perceiver_exporters.ir.trace import trace

    return {c.name: trace(c, loud.cut.profile) for c in loud.cut.components}


def test_the_fp32_graph_computes_the_same_bits(loud: Blueprint, loud_graphs: dict[str, ir.Model]) -> None:
    statistics = calibrate(loud.cut, loud_graphs, loud.calibration)
    x = {"latents": np.random.default_rng(0).standard_normal((4, 16, 64), dtype=np.float32)}
    graph = loud_graphs["processor_block"]
    chosen = divisors(graph, statistics["processor_block"])
    assert sorted(chosen) == sorted(LAYERS)
    assert all(np.array_equal(np.exp2(np.round(np.log2(d))), d) for d in chosen.values())
    assert max(d.max() / d.min() for d in chosen.values()) >= 4
    before, after = (
        ort.InferenceSession(ir.to_proto(g).SerializeToString()).run(None, x)[0]
        for g in (graph, smooth(graph.clone(), chosen))
    )
    assert np.array_equal(before, after)


def graph_error(graph: ir.Model, calls: list[ComponentCall]) -> float:
    """Of a quantised graph, its integers computed as it says."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), options)
    names = [str(value.name) for value in graph.graph.outputs]
    return max(
        relative_l2(call.outputs[name], got)
        for call in calls
        for name, got in zip(names, session.run(names, dict(call.inputs)), strict=True)
    )


def make_plan(loud, graphs, golden, scheme, options):
    int8, measured = PRECISIONS["int8"], Measured(loud.cut, graphs, loud.calibration, golden)
    return int8.plan(measured, int8.calibrate(measured, options), SCHEMES[scheme], options)


@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_it_lowers_the_error_of_loud_channels(
    loud: Blueprint, loud_graphs: dict[str, ir.Model], scheme: str, progress: list[str]
) -> None:
    golden = make_samples(loud.cut, loud.golden)
    plan = make_plan(loud, loud_graphs, golden, scheme, QuantizationOptions())
    assert plan["processor_block"].divisors
    assert any(line.startswith("processor_block: smoothed: error") for line in progress)
    calls = [sample.components["processor_block"] for sample in golden]
    plain = dataclasses.replace(plan["processor_block"], divisors={})
    graph = loud_graphs["processor_block"]
    errors = [graph_error(quantize(graph, p, SCHEMES[scheme]), calls) for p in (plan["processor_block"], plain)]
    assert errors[0] < 0.7 * errors[1]


def test_it_is_left_out_where_it_does_not_help(loud: Blueprint, loud_graphs: dict[str, ir.Model]) -> None:
    golden = make_samples(loud.cut, loud.golden)
    options = QuantizationOptions(smooth=False)
    plan = make_plan(loud, loud_graphs, golden, "cpu", options)
    assert not any(each.divisors for each in plan.values())


def test_a_constant_shared_by_two_normalisations_is_not_changed_for_both(
    loud: Blueprint, loud_graphs: dict[str, ir.Model]
) -> None:
    graph = loud_graphs["processor_block"].clone()
    norms = [node for node in graph.graph if node.op_type == "LayerNormalization"]
    for node in norms[1:]:
        node.replace_input_with(1, norms[0].inputs[1])
    statistics = calibrate(loud.cut, loud_graphs, loud.calibration)["processor_block"]
    x = {"latents": FAMILY.sample(CONFIG, 1, np.random.default_rng(0))["pixel_values"].reshape(1, -1)[:, :64]}
    x = {"latents": np.broadcast_to(x["latents"][:, None], (1, 16, 64)).astype(np.float32).copy()}
    chosen = {k: d for k, d in divisors(graph, statistics).items() if k.startswith("0.attention")}
    before, after = (
        ort.InferenceSession(ir.to_proto(g).SerializeToString()).run(None, x)[0]
        for g in (graph, smooth(graph.clone(), chosen))
    )
    assert np.array_equal(before, after)
    assert ComponentPlan(statistics).divisors == {}
