"""Attention as one operator: REAL builds of both forms with TensorRT-RTX, and the choice between them, SIMULATED."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import tiny_bundles
from engines.rtx import small
from engines.simulation.jetson import SimulatedJetson, simulated_jetson

from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import BuildError, UsageError
from perceiver_runtime.measure.parity import component_failure
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensorrt.builder import forms
from perceiver_runtime.tensorrt.builder.attention import Operators, use_operators
from perceiver_runtime.tensorrt.builder.bundle import EngineOptions, EngineReport, build_engines
from perceiver_runtime.tensorrt.builder.device_build import build_here
from perceiver_runtime.tensorrt.builder.forms import FormOptions
from perceiver_runtime.tensorrt.dialect import dialect
from perceiver_runtime.tensorrt.fusion import fused_attention, layers_in, layers_of_json
from perceiver_runtime.tensorrt.sidecar import read_sidecar


@pytest.fixture(scope="module")
def trt() -> ModuleType:
    return load_tensorrt("tensorrt_rtx")


@pytest.mark.parametrize(
    ("family", "component", "precision", "operators"),
    [
        ("patch-classifier", "processor_block", "fp16", Operators(("0.attention/Softmax", "1.attention/Softmax"))),
        ("classic-language-model", "encoder", "fp16", Operators(("layer.attention/Softmax",), masked=True)),
        ("patch-classifier", "decoder", "fp32", Operators((), (("layer.attention/Softmax", "computed in FLOAT"),))),
    ],
)
def test_both_forms_build(
    trt: ModuleType, family: str, component: str, precision: str, operators: Operators, tmp_path: Path
) -> None:
    """As many fused kernels in either form; FP32 has none, and stays as it is."""
    subject = small(family)
    ir.save(subject.graphs(precision)[component], path := tmp_path / "graph.onnx")
    products = subject.build(trt, component, path)
    made = subject.build(trt, component, path, attention="operator")
    assert made.operators == operators
    assert made.sidecar.attention == ("operator" if operators.replaced else "products")
    assert products.sidecar.fused_attention == made.sidecar.fused_attention == len(operators.replaced)
    assert made.sidecar.products == products.sidecar.products


HALF, LOWEST = 31743, 64511
"""Bits of 65504 and -65504 in FP16."""
OPERANDS = "float16[1,2,4,8] q, float16[1,2,8,6] k, float16[1,2,6,8] v"
DYNAMIC = "float16[1,2,N,8] q, float16[1,2,8,M] k, float16[1,2,M,8] v"
MASK = f"""
    most = Constant<value = float16 {{{HALF}}}>()
    least = Constant<value = float16 {{{LOWEST}}}>()
    limit = Where(mask, most, least)
"""
WEIGHTS = "s = MatMul(q, k) w = Softmax<axis = -1>(s)"
PRODUCT = "o = MatMul(w, v) y = Identity(o)"


def use(trt: ModuleType, inputs: str, body: str) -> tuple[Operators, Any]:
    """What becomes of the attention of a graph, and the network."""
    graph = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> g ({inputs}) => (float16[A,B,C,D] y) {{ {body} }}'
    )
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR)).parse(graph.SerializeToString())
    return use_operators(trt, network, dialect(trt)), network


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        pytest.param(OPERANDS, f"s = MatMul(q, k) w = Softmax<axis = 2>(s) {PRODUCT}", id="softmax of another axis"),
        pytest.param(OPERANDS, f"{WEIGHTS} y = MatMul(w, v)", id="the result is an output of the network"),
        pytest.param(
            OPERANDS,
            f"{WEIGHTS} o = MatMul(w, v) sum = ReduceSum<keepdims = 1>(w) y = Add(o, sum)",
            id="weights that something else reads",
        ),
        pytest.param(
            OPERANDS, f"s = MatMul(q, k) u = Softmax<axis = -1>(s) w = Relu(u) {PRODUCT}", id="weights changed"
        ),
        pytest.param(
            OPERANDS, f"s = MatMul(q, k) t = Add(s, s) w = Softmax<axis = -1>(t) {PRODUCT}", id="scores changed"
        ),
        pytest.param(
            OPERANDS, f"s = MatMul(q, k) t = Relu(s) w = Softmax<axis = -1>(t) {PRODUCT}", id="an activation of scores"
        ),
        pytest.param("float16[1,2,4,6] s, float16[1,2,6,8] v", f"w = Softmax<axis = -1>(s) {PRODUCT}", id="no product"),
        pytest.param(
            OPERANDS,
            f"c = Constant<value = float16 {{{HALF}}}>() s = MatMul(q, k) t = Min(s, c) w = Softmax<axis = -1>(t) "
            f"{PRODUCT}",
            id="scores clamped to a number",
        ),
        pytest.param(
            f"{OPERANDS}, bool[1,1,4,6] mask, float16[1,1,4,6] least",
            f"most = Constant<value = float16 {{{HALF}}}>() limit = Where(mask, most, least) s = MatMul(q, k) "
            f"t = Min(s, limit) w = Softmax<axis = -1>(t) {PRODUCT}",
            id="scores clamped to numbers of an input",
        ),
        pytest.param(
            f"{OPERANDS}, bool[1,1,4,6] mask",
            f"{MASK} s = MatMul(q, k) t = Min(s, limit) u = Min(t, limit) w = Softmax<axis = -1>(u) {PRODUCT}",
            id="two masks",
        ),
        pytest.param(
            OPERANDS,
            "s = MatMul(q, k) t = Transpose<perm = [0, 1, 3, 2]>(s) w = Softmax<axis = -1>(t) o = MatMul(w, q) "
            "y = Identity(o)",
            id="scores transposed",
        ),
        pytest.param(
            "float16[1,2,4,8] q, float16[1,2,8,6] k, float16[1,4,6,8] v",
            "s = MatMul(q, k) shape = Constant<value = int64[4] {1, 4, 2, 6}>() t = Reshape(s, shape) "
            f"w = Softmax<axis = -1>(t) {PRODUCT}",
            id="heads exchanged with queries",
        ),
        pytest.param(
            f"{DYNAMIC}, int64[2] sizes",
            "s = MatMul(q, k) u = Softmax<axis = -1>(s) heads = Constant<value = int64[2] {1, 2}>() "
            f"shape = Concat<axis = 0>(heads, sizes) w = Reshape(u, shape) {PRODUCT}",
            id="weights in a shape known when it runs",
        ),
    ],
)
def test_other_products_stay_as_they_are(trt: ModuleType, inputs: str, body: str) -> None:
    """What is close to attention but computes something else is left alone, and said to be."""
    made, network = use(trt, inputs, body)
    assert str(made) == "0 as operators, 1 as products (no form that is known)"
    assert trt.LayerType.ATTENTION_OUTPUT not in {network.get_layer(i).type for i in range(network.num_layers)}


@pytest.mark.parametrize("width", [4, 264])
def test_widths_that_no_kernel_takes_stay_products(trt: ModuleType, width: int) -> None:
    operands = f"float16[1,2,4,{width}] q, float16[1,2,{width},6] k, float16[1,2,6,{width}] v"
    made, _ = use(trt, operands, f"{WEIGHTS} {PRODUCT}")
    assert str(made) == f"0 as operators, 1 as products (heads of width {width})"


@pytest.mark.parametrize("inputs", [OPERANDS, DYNAMIC])
def test_attention_of_any_sizes_becomes_an_operator(trt: ModuleType, inputs: str) -> None:
    """Weights of casts there and back count as well: FP16 attention with a softmax in FP32."""
    body = "s = MatMul(q, k) t = Cast<to = 1>(s) u = Softmax<axis = -1>(t) w = Cast<to = 10>(u)"
    made, network = use(trt, inputs, f"{body} {PRODUCT}")
    assert (len(made.replaced), made.kept, made.masked) == (1, (), False)
    assert trt.LayerType.ATTENTION_OUTPUT in {network.get_layer(i).type for i in range(network.num_layers)}


def test_keys_that_the_product_transposes_are_taken_as_they_are(trt: ModuleType) -> None:
    network = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_network(0)
    query, key, value = (network.add_input(name, trt.float16, (1, 2, 8, 16)) for name in ("query", "key", "value"))
    as_is, turned = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE
    softmax = network.add_softmax(network.add_matrix_multiply(query, as_is, key, turned).get_output(0))
    softmax.axes = 1 << 3
    product = network.add_matrix_multiply(softmax.get_output(0), as_is, value, as_is)
    network.mark_output(network.add_identity(product.get_output(0)).get_output(0))
    assert len(use_operators(trt, network, dialect(trt)).replaced) == 1
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    (attention,) = (layer for layer in layers if layer.type == trt.LayerType.ATTENTION_INPUT)
    assert [attention.get_input(index).name for index in range(3)] == ["query", "key", "value"]


def test_fused_kernels_are_counted_by_their_names() -> None:
    log = (
        "Engine Layer Information:\n"
        "Name: _gemm_mha_v2_myl0_6, LayerType: kgen, Inputs: [], TacticName: _gemm_mha_v2_0xe1, StreamId: 0\n"
        "Name: 0.mha.output/MatMul_myl0_7, LayerType: gemm, Inputs: [], TacticName: sm80_gemm, StreamId: 0\n"
        "Name: attention, LayerType: kgen, Inputs: [], TacticName: fmha_v2_flash_attention_fp16, StreamId: 0\n"
    )
    assert fused_attention([*layers_in(log), *layers_in(log)]) == 2
    assert fused_attention(layers_of_json('{"Layers": [{"Name": "mha.output", "TacticName": "x"}, "old"]}')) == 0
    assert fused_attention([]) is None


def thor() -> SimulatedJetson:
    return simulated_jetson("10.16.1.11", "11.0")


def reports(path: Path, jetson: SimulatedJetson, **options: Any) -> dict[str, EngineReport]:
    made = build_here(path, jetson.trt, jetson.cuda, target="jetson-thor", parity=component_failure, **options)
    return {report.component: report for report in made}


def imitate(
    monkeypatch: pytest.MonkeyPatch,
    fused: int,
    *,
    refused: bool = False,
    masked: bool = False,
    replaced: tuple[str, ...] = ("softmax",),
) -> None:
    """Builds in FP16 whose operators, which the simulation lacks, are the products with so many fused kernels."""
    real, inspect = forms.build_engine, forms.inspect_engine
    latest: list[bool] = []

    def build(trt: ModuleType, request: Any, device: Any) -> Any:
        operator = request.attention == "operator"
        latest.append(operator)
        if operator and refused:
            raise BuildError("no kernel of this width")
        made = real(trt, replace(request, attention="products"), device)
        sidecar = replace(made.sidecar, attention=request.attention, products={"fp16": 1})
        return replace(made, sidecar=sidecar, operators=Operators(replaced, masked=masked) if operator else Operators())

    def inspected(*arguments: Any) -> Any:
        return replace(inspect(*arguments), fused_attention=fused if latest[-1] else 1)

    monkeypatch.setattr(forms, "build_engine", build)
    monkeypatch.setattr(forms, "inspect_engine", inspected)


def test_operators_that_fuse_more_and_pass_are_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch, 2)
    made = reports(path, thor())["encoder"].attention
    assert made == "operator (2 fused kernels as operators, 1 as products; parity passed)"
    sidecar = read_sidecar(path / "engines/jetson-thor/encoder.json")
    assert (sidecar.attention, sidecar.fused_attention) == ("operator", 2)
    with thor().open(path):
        pass


def test_operators_that_fail_parity_are_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch, 2)
    run = forms.run_plan
    monkeypatch.setattr(forms, "run_plan", lambda *a: {n: x + np.ones_like(x) for n, x in run(*a).items()})
    made = reports(path, thor())["encoder"].attention
    assert made.startswith("products (operator failed parity: ")
    assert "tolerance" in made
    assert read_sidecar(path / "engines/jetson-thor/encoder.json").attention == "products"


@pytest.mark.parametrize(
    ("fused", "refused", "reason"),
    [
        (1, False, "operator not taken: 1 fused kernels as operators, 1 as products"),
        (2, True, "operator refused: no kernel of this width"),
    ],
)
def test_products_stay_and_the_report_says_why(
    path: Path, monkeypatch: pytest.MonkeyPatch, fused: int, refused: bool, reason: str
) -> None:
    imitate(monkeypatch, fused, refused=refused)
    assert reports(path, thor())["encoder"].attention == f"products ({reason})"


def test_masked_attention_stays_products(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a mask excludes every key, products attend all equally; an operator's result is not defined."""
    imitate(monkeypatch, 2, masked=True)
    assert reports(path, thor())["encoder"].attention.startswith("products (operator not taken: attention is masked")


def test_a_graph_without_attention_has_no_operator(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch, 2, replaced=())
    assert reports(path, thor())["encoder"].attention == "products (no operator: 0 as operators)"


def test_what_is_not_tried(path: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reports(path, jetson)["encoder"].attention == "products (TensorRT 10.3 has no attention operator)"
    assert "nothing in FP16 or BF16" in reports(path, thor())["encoder"].attention
    imitate(monkeypatch, 2)
    options = EngineOptions(device=thor().device)
    assert "parity needs the GPU" in build_engines(path, "jetson-thor", thor().trt, options)[0].attention


def test_a_form_that_was_asked_for_is_built_or_refused(path: Path, jetson: SimulatedJetson) -> None:
    """The graph has no softmax over four dimensions: nothing becomes an operator, and the report says so."""
    assert reports(path, thor(), attention="products")["head"].attention == "products (asked for)"
    rtx = EngineOptions(compute_capabilities=("12.0",), form=FormOptions("operator"))
    made = build_engines(path, "rtx", load_tensorrt("tensorrt_rtx"), rtx)
    assert all(report.attention.startswith("products (asked for: 0 as operators") for report in made)
    with pytest.raises(UsageError, match=r"attention operator: expected TensorRT 10\.14 or newer.*got TensorRT 10\.3"):
        reports(path, jetson, attention="operator")


def test_engines_that_fit_are_kept(path: Path, jetson: SimulatedJetson, tmp_path: Path) -> None:
    """After an update all are built again; then none, unless all are asked for."""
    jetson.build(path, "jetson-thor")
    names = {component.name for component in load_bundle(path).manifest.components}

    def built(device: SimulatedJetson, **options: Any) -> set[str]:
        return {name for name, report in reports(path, device, everything=False, **options).items() if not report.kept}

    before = read_sidecar(path / "engines/jetson-thor/encoder.json")
    assert built(simulated_jetson("10.16.1.11", "8.7")) == names
    assert read_sidecar(path / "engines/jetson-thor/encoder.json").tensorrt == "10.16.1.11" != before.tensorrt
    again = simulated_jetson("10.16.1.11", "8.7")
    plan = (path / "engines/jetson-thor/encoder.plan").stat().st_ino
    assert built(again) == set()
    assert (path / "engines/jetson-thor/encoder.plan").stat().st_ino == plan
    assert built(again, version_compatible=True) == names
    assert not any(report.kept for report in reports(path, again, everything=True).values())
    with again.open(path):
        pass


def test_engines_of_another_bundle_are_taken_over(path: Path, jetson: SimulatedJetson, tmp_path: Path) -> None:
    """Those of unchanged components; the others are built."""
    old = tmp_path / "old"
    shutil.copytree(path, old)
    jetson.build(old, "jetson-thor")
    head = onnx.load(path / "onnx/head.onnx")
    head.producer_name = "trained again"
    onnx.save(head, path / "onnx/head.onnx")
    tiny_bundles.rehash(path, "onnx/head.onnx")
    with load_bundle(old) as found:
        made = reports(path, jetson, everything=False, old=found)
    assert {name for name, report in made.items() if not report.kept} == {"head"}
    with jetson.open(path):
        pass
