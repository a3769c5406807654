"""The range audit on seeded graphs: each rule finds what was planted, names the node, and the rewrite heeds it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner

from perceiver_deploy.cli import inspect
from perceiver_exporters.component import Blueprint
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision import PRECISIONS, Request
from perceiver_exporters.precision.audit.constants import RULES, audit
from perceiver_exporters.precision.formats import BF16, FP16, Format
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.precision.proof.operands import prove
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_runtime.errors import CheckError
from perceiver_runtime.tensors import Profile, Range, TensorSpec

from .conftest import Bundle

import onnxruntime as ort

PROFILE = Profile("default", {"batch": Range(1, 1, 4), "keys": Range(8, 64, 70_000)})
X = TensorSpec("x", "float32", ("batch", 8, 16))
SCORES = TensorSpec("scores", "float32", ("batch", "keys"))
INDEX = TensorSpec("index", "int64", ("batch", 8))


def graph(inputs: tuple[TensorSpec, ...], *nodes: tuple[str, str, str], **constants: object) -> ir.Model:
    """Nodes (operator, its input names, its one output's name), named by their output; the last is the graph's."""
    kinds = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}
    made = [
        onnx.helper.make_node(op, read.split(), [out], name=out, **({"to": 1} if op == "Cast" else {}))  # type: ignore[arg-type]
        for op, read, out in nodes
    ]
    proto = onnx.helper.make_graph(
        made,
        "seeded",
        [onnx.helper.make_tensor_value_info(s.name, kinds[s.dtype], s.shape) for s in inputs],
        [onnx.helper.make_tensor_value_info(nodes[-1][2], onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(proto, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def found(model: ir.Model, inputs: tuple[TensorSpec, ...], form: Format = FP16) -> dict[str, tuple[str, str]]:
    return {f.node: (f.rule, f.action) for f in audit(SizedGraph(model, inputs, PROFILE), form)}


def rewritten(model: ir.Model, inputs: tuple[TensorSpec, ...], form: Format = FP16) -> ir.Model:
    findings = audit(SizedGraph(model, inputs, PROFILE), form)
    return PRECISIONS[form.name].rewrite(model, Request("seeded", SCHEMES[""], lambda: iter(()), findings))


def weight(peak: float = 1.0) -> np.ndarray:
    made = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    made[3, 5] = peak
    return made


def test_a_weight_beyond_the_range_is_refused() -> None:
    model = graph((X,), ("MatMul", "x w", "product"), w=weight(70_000))
    assert found(model, (X,)) == {"product": ("RA001", "refused")}
    (finding,) = audit(SizedGraph(model, (X,), PROFILE), FP16)
    assert "constant w leaves FP16's range of 65,504 at 70,000" in str(finding)
    assert found(model, (X,), BF16) == {}


def test_a_scale_beyond_the_range_stays_in_single_precision() -> None:
    model = graph((X,), ("MatMul", "x w", "product"), ("Mul", "product big", "scaled"), w=weight(), big=1e6)
    assert found(model, (X,)) == {"scaled": ("RA002", "protected")}
    half = rewritten(model, (X,))
    types = {str(node.name): node.inputs[0].dtype for node in half.graph if node.inputs[0] is not None}
    assert types["product"] == ir.DataType.FLOAT16
    assert types["scaled"] == ir.DataType.FLOAT


@pytest.mark.parametrize("fill", [-3.4e38, -np.inf, -1e5])
def test_a_mask_fill_beyond_the_range_is_protected_and_gives_no_nan(fill: float) -> None:
    """In FP16 the fill is -inf: a row of nothing else would be NaN after the softmax."""
    model = graph(
        (X,),
        ("MatMul", "x w", "product"),
        ("Add", "product mask", "masked"),
        ("Softmax", "masked", "attention"),
        w=weight(),
        mask=np.where(np.arange(16) < 4, 0.0, fill),
    )
    assert found(model, (X,)) == {"masked": ("RA003", "protected")}
    x = np.random.default_rng(1).standard_normal((2, 8, 16), dtype=np.float32)
    exact, half = (
        ort.InferenceSession(ir.to_proto(m).SerializeToString()).run(None, {"x": x})[0]
        for m in (model.clone(), rewritten(model, (X,)))
    )
    np.testing.assert_allclose(half, exact, atol=5e-3)


def test_keys_are_counted_at_the_profiles_largest_sizes() -> None:
    model = graph((SCORES,), ("Softmax", "scores", "attention"))
    assert found(model, (SCORES,)) == {"attention": ("RA004", "protected")}
    (finding,) = audit(SizedGraph(model, (SCORES,), PROFILE), FP16)
    assert "Softmax over 70,000 addends; FP16 can count to 65,504" in finding.why
    fits = Profile("default", {"batch": Range(1, 1, 4), "keys": Range(8, 64, 65_504)})
    assert audit(SizedGraph(model, (SCORES,), fits), FP16) == ()
    assert [f.rule for f in audit(SizedGraph(model, (SCORES,), fits), BF16)] == ["RA004"]


def test_the_argument_of_a_sine_is_protected_back_to_its_positions() -> None:
    model = graph(
        (X,),
        ("MatMul", "x w", "angle"),
        ("Mul", "angle frequency", "scaled"),
        ("Sin", "scaled", "position"),
        ("MatMul", "position w", "projected"),
        w=weight(),
        frequency=352.0,
    )
    assert found(model, (X,)) == dict.fromkeys(("position", "scaled", "angle"), ("RA005", "protected"))
    half = rewritten(model, (X,))
    types = {str(node.name): node.inputs[0].dtype for node in half.graph if node.inputs[0] is not None}
    assert {types[name] for name in ("angle", "scaled", "position")} == {ir.DataType.FLOAT}
    assert types["projected"] == ir.DataType.FLOAT16


def test_integers_that_enter_a_product_are_protected() -> None:
    model = graph(
        (INDEX,),
        ("Cast", "index", "number"),
        ("Mul", "number step", "position"),
        ("MatMul", "position w", "product"),
        step=0.5,
        w=np.ones((8, 4), np.float32),
    )
    assert found(model, (INDEX,)) == dict.fromkeys(("position", "product"), ("RA006", "protected"))


def test_a_convolution_has_bf16_only_from_opset_22_on() -> None:
    image = TensorSpec("x", "float32", ("batch", 3, 8, 8))
    model = graph((image,), ("Conv", "x w", "map"), w=np.ones((4, 3, 3, 3), np.float32))
    assert found(model, (image,), BF16) == {"map": ("RA007", "protected")}
    assert found(model, (image,)) == {}
    model.graph.opset_imports[""] = 22
    assert found(model, (image,), BF16) == {}


def test_every_rule_is_exercised_here() -> None:
    source = Path(__file__).read_text()
    assert [rule for rule in RULES if f'"{rule}"' not in source] == []


def test_a_healthy_model_has_no_findings(blueprint: Blueprint, traced: dict[str, ir.Model]) -> None:
    for component in blueprint.cut.components:
        assert audit(SizedGraph(traced[component.name], component.inputs, blueprint.cut.profile), FP16) == ()


def test_protected_products_are_no_broken_promise() -> None:
    model = graph((INDEX,), ("Cast", "index", "number"), ("MatMul", "number w", "product"), w=np.ones((8, 4)))
    findings = audit(SizedGraph(model, (INDEX,), PROFILE), FP16)
    half = rewritten(model, (INDEX,))
    proof = prove(SizedGraph(half, (INDEX,), PROFILE), PRECISIONS["fp16"], frozenset(f.node for f in findings))
    assert (proof.weighted, proof.promised) == (0.0, 1.0)
    with pytest.raises(CheckError, match=r"found 0\.0%"):
        prove(SizedGraph(half, (INDEX,), PROFILE), PRECISIONS["fp16"])


def mask_beyond_range(model: ir.Model) -> ir.Model:
    """Add a mask to the scores of the first softmax."""
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    scores = softmax.inputs[0]
    assert scores is not None
    fill = ir.tensor(np.array(-3.4e38, np.float32), name="fill")
    value = ir.Value(name="fill", shape=ir.Shape(()), type=ir.TensorType(ir.DataType.FLOAT), const_value=fill)
    model.graph.register_initializer(value)
    low = ir.node("Min", [scores, value], name="masked")
    low.outputs[0].name, low.outputs[0].shape, low.outputs[0].type = "masked", scores.shape, scores.type
    model.graph.insert_before(softmax, low)
    softmax.replace_input_with(0, low.outputs[0])
    return model


def test_an_export_says_what_it_protects(bundle: Bundle, traced: dict[str, ir.Model], progress: list[str]) -> None:
    seeded = {**traced, "processor_block": mask_beyond_range(traced["processor_block"].clone())}
    path, manifest = bundle("fp16", tracer=lambda component, *_: seeded[component.name].clone())
    assert any(line.startswith("RA002 processor_block: masked kept in FP32: constant fill leaves") for line in progress)
    assert PATH in manifest.files
    report = {entry.component: entry for entry in load_record(path / PATH)}
    assert [(f.rule, f.node) for f in report["processor_block"].findings] == [("RA002", "masked")]
    assert report["encoder"].findings == ()
    assert json.loads((path / PATH).read_text())[0]["weighted"] == 1.0
    assert "RA002" in (path / "README.md").read_text()
    shown = CliRunner().invoke(inspect.command, [str(path), "--precision"])
    assert shown.exit_code == 0
    assert "RA002" in shown.output


def test_an_export_refuses_a_weight_beyond_the_range(bundle: Bundle, traced: dict[str, ir.Model]) -> None:
    block = traced["processor_block"].clone()
    node = next(n for n in block.graph if n.op_type == "MatMul" and n.inputs[1] is not None and n.inputs[1].const_value)
    huge = node.inputs[1].const_value.numpy().copy()
    huge[0, 0] = 1e5
    node.inputs[1].const_value = ir.tensor(huge, name=node.inputs[1].name)
    seeded = {**traced, "processor_block": block}
    with pytest.raises(CheckError, match=r"RA001 processor_block: .*fp32"):
        bundle("fp16", tracer=lambda component, *_: seeded[component.name].clone())
