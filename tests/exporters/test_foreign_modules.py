"""Weights, values and outputs that are used more than once: every precision holds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx_ir as ir
import pytest
from factories.modules import FOREIGN

from perceiver_deploy.api.verify import verify
from perceiver_exporters.bundle.storage import save_graphs
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.graph import constant_of
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.precision.calibration.observe import observe
from perceiver_exporters.precision.integers.layers import layer_of, weighted
from perceiver_exporters.precision.integers.plan import ComponentPlan
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.precision.integers.smooth import divisors
from perceiver_exporters.precision.proof.kernels import kernel_shares
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_exporters.precision.static_integers import quantize

import onnxruntime as ort

TRACES = {name: SharedTraces() for name in FOREIGN}
FORMS = [("fp16", "cpu"), ("int8", "cpu"), ("int8-dynamic", "cpu"), ("int8", "rtx"), ("bf16", "rtx")]


@cache
def _traced(name: str) -> ir.Model:
    cut = FOREIGN[name].blueprint().cut
    return TRACES[name](cut.components[0], cut.profile, 20)


def traced(name: str) -> ir.Model:
    return _traced(name).clone()


def plan(name: str, graph: ir.Model, kept: frozenset[str] = frozenset()) -> ComponentPlan:
    layers = frozenset(map(layer_of, weighted(graph.graph)))
    return ComponentPlan(observe(graph, FOREIGN[name].blueprint().calibration), kept=kept, layers=layers)


@pytest.mark.parametrize(("precision", "target"), FORMS)
@pytest.mark.parametrize("name", FOREIGN)
def test_every_precision_holds(name: str, precision: str, target: str, tmp_path: Path) -> None:
    blueprint = FOREIGN[name].blueprint()
    manifest = export_bundle(blueprint, tmp_path / "b", precision, target, tracer=TRACES[name])
    assert verify(tmp_path / "b").passed
    assert all(tolerance.rel_l2 < 0.1 for tolerance in manifest.tolerances)
    integers = name not in ("plain", "conv-twice") if precision == "int8-dynamic" else name != "plain"
    if target == "cpu" and precision != "fp16" and integers:
        (entry,) = load_record(tmp_path / "b" / PATH)
        assert entry.kernels == {precision: 1.0}


def test_only_a_products_own_operand_is_rounded() -> None:
    """What else reads it, and what is a graph output, keeps FP32; so does an embedding's lookup."""
    graph = traced("read")
    made = quantize(graph, plan("read", graph), SCHEMES["cpu"]).graph
    last = next(node for node in made if node.op_type == "Add" and made.outputs[0] in node.inputs)
    assert last.op_type == "Add"
    assert made.outputs[0].producer().op_type == "Add"
    table = traced("tied")
    gather = next(n for n in quantize(table, plan("tied", table), SCHEMES["cpu"]).graph if n.op_type == "Gather")
    assert constant_of(gather.inputs[0]).dtype == ir.DataType.FLOAT


def test_a_weight_is_rounded_along_each_products_own_axis() -> None:
    graph = traced("axes")
    made = quantize(graph, plan("axes", graph), SCHEMES["tensorrt"]).graph
    stored = [str(node.inputs[1].producer().inputs[0].name) for node in weighted(made)]
    assert len(set(stored)) == len(stored) == 4


def test_the_proof_counts_each_use_of_a_weight() -> None:
    """One of two products that share a weight is kept in FP32."""
    graph, component = traced("tied"), FOREIGN["tied"].blueprint().cut.components[0]
    made = quantize(graph, plan("tied", graph, frozenset({"head"})), SCHEMES["cpu"])
    shares = kernel_shares(SizedGraph(made, component.inputs, FOREIGN["tied"].blueprint().cut.profile))
    head, scores, mix = 40 * 32, 6 * 40 * 32, 6 * 32 * 32
    assert shares["fp32"] == pytest.approx(head / (head + scores + mix))
    assert shares["int8"] == pytest.approx(1 - shares["fp32"])


def test_a_layer_that_is_applied_elsewhere_too_is_not_smoothed() -> None:
    graph = traced("twice")
    assert divisors(graph, plan("twice", graph).statistics) == {}


def test_copies_of_a_weight_share_one_place(tmp_path: Path) -> None:
    graph = traced("twice")
    made = quantize(graph, plan("twice", graph), SCHEMES["cpu"])
    save_graphs({"twice": made}, tmp_path)
    assert (tmp_path / "onnx" / "twice.weights").stat().st_size < 4 * 2048
    stored = ir.load(tmp_path / "onnx" / "twice.onnx").graph.initializers.values()
    places = [t.offset for v in stored if isinstance(t := v.const_value, ir.ExternalTensor)]
    assert len(places) == 4
    assert len(set(places)) == 2


@pytest.mark.parametrize("name", ["twice", "tied", "conv-twice"])
def test_sessions_that_make_weights_unsigned_load_shared_ones(name: str) -> None:
    """They add a constant for each product's weight, under a name made of the weight's."""
    graph = traced(name)
    made = quantize(graph, plan(name, graph), SCHEMES["cpu"])
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(ir.to_proto(made).SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert session.run(None, FOREIGN[name].feeds(0))


def test_limits_stay_where_quantisers_follow_and_for_tensorrt() -> None:
    graph = traced("limited")
    before = sorted(node.op_type for node in graph.graph if node.op_type in ("Relu", "Clip"))
    assert before == ["Clip", "Relu", "Relu"]
    kept = {
        scheme: [n.op_type for n in quantize(graph, plan("limited", graph), SCHEMES[scheme]).graph]
        for scheme in ("cpu", "tensorrt")
    }
    assert [kept["cpu"].count(each) for each in ("Relu", "Clip", "Max", "Min")] == [1, 0, 2, 1]
    assert [kept["tensorrt"].count(each) for each in ("Relu", "Clip", "Max", "Min")] == [2, 1, 0, 0]
