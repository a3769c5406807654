from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from factories.weights import randomise
from faults.seeded import seed

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.flow import FlowConfig, OpticalFlow
from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose.bisection import bisect
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.fused_attention import is_fused
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import SharedTraces, trace
from perceiver_exporters.preflight import check
from perceiver_exporters.rules import Context, rewrite, stored_outcomes
from perceiver_exporters.rules.attention.absorbed_attention import ABSORBED_ATTENTION
from perceiver_exporters.rules.attention.attention_form import AS_PRODUCTS, ATTENTION_FORM, KERNELS
from perceiver_exporters.rules.attention.separable_positions import SEPARABLE_POSITIONS
from perceiver_exporters.rules.constants.constant_query import CONSTANT_QUERY
from perceiver_exporters.rules.constants.gathered_query import GATHERED_QUERY
from perceiver_exporters.rules.products.packed_projections import PACKED_PROJECTIONS
from perceiver_exporters.targets.target import TARGETS
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime import verify
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.manifest import Source

from .conftest import EXACT, SMALL, Subject, cross


def fused(graph: ir.Model) -> list[ir.Node]:
    return [node for node in graph.graph if is_fused(node)]


def test_declines_a_softmax_that_is_not_over_the_keys(subject):
    given = subject("fourier", "processor_block")
    graph = given.graph.clone()
    softmax = next(node for node in graph.graph if node.op_type == "Softmax")
    softmax.attributes["axis"] = ir.AttrInt64("axis", 2)
    _, (outcome,) = dataclasses.replace(given, graph=graph).rewritten(ATTENTION_FORM, target="cuda", precision="fp16")
    assert outcome.detail == "its softmax is not over the keys"


def test_two_batches_that_nothing_tells_apart_are_not_taken_for_one(subject):
    """Queries of one row among them: they are spread over the batch of the keys."""
    given = subject("language", "decoder")
    graph = given.graph.clone()
    for node in graph.graph:
        for value in node.outputs:
            if value.shape is not None and len(value.shape) == 3:
                value.shape = ir.Shape([ir.SymbolicDim(None), *value.shape[1:]])
    rewritten, (outcome,) = dataclasses.replace(given, graph=graph).rewritten(
        ATTENTION_FORM, target="cuda", precision="fp16"
    )
    assert outcome.applied
    assert given.distance(rewritten) < EXACT


@pytest.mark.parametrize(
    ("model", "component", "rules", "detail"),
    [
        ("fourier", "processor_block", (), "0.attention: flash"),
        ("flow", "processor_block", (PACKED_PROJECTIONS,), "0.attention: flash"),
        ("language", "decoder", (), "layer.attention: flash"),  # queries of one row, spread over the batch
        ("language", "decoder", (GATHERED_QUERY,), "layer.attention: flash"),
        ("fourier", "decoder", (CONSTANT_QUERY,), "layer.attention: flash"),  # constant queries, scaled already
        ("texts", "decoder", (), "layer.attention: flash"),
    ],
)
def test_attention_becomes_one_operator(subject, model, component, rules, detail):
    given = subject(model, component)
    graph, (*_, outcome) = given.rewritten(*rules, ATTENTION_FORM, target="cuda", precision="fp16")
    assert outcome.applied
    assert outcome.detail == detail
    assert len(fused(graph)) == 1
    assert not [node for node in graph.graph if node.op_type in ("Softmax", "Transpose")]
    assert outcome.after.flops == outcome.before.flops
    assert outcome.after.written < outcome.before.written
    assert given.distance(graph) < EXACT


def test_declines_where_products_are_the_better_form(subject):
    given = subject("fourier", "processor_block")
    assert set(AS_PRODUCTS) | set(KERNELS) == set(TARGETS)
    for target, precision, reason in [
        ("cpu", "fp32", "no fused kernel in fp32 for 16 x 16 x 16 x 16"),
        ("cpu", "bf16", "in BF16"),
        ("jetson-orin", "fp16", "TensorRT fuses the products"),
        ("rtx", "fp16", "TensorRT-RTX fuses the products"),
        ("cuda", "bf16", "in BF16"),
        ("cuda", "fp32", "no fused kernel in fp32 for 16 x 16 x 16 x 16"),
    ]:
        graph, (outcome,) = given.rewritten(ATTENTION_FORM, target=target, precision=precision)
        assert not outcome.applied
        assert reason in outcome.detail
        assert given.distance(graph) == 0


def test_processors_attend_in_blocks_where_scores_are_many():
    """From 1024 latents on: the whole matrix of scores would go through memory."""
    layer, sized = ProcessorConfig(blocks=1, layers=1, heads=2), {}
    for latents in (1023, 1024):
        config = PerceiverConfig(latents, 16, cross(1, 16, 16), layer, cross(1, 16, 16))
        cut = FAMILIES["optical-flow"].cut(randomise(OpticalFlow(FlowConfig(4, 4, 3, 8, 2, config))))
        component = cut.component("processor_block")
        graph = trace(component, cut.profile)
        before, context = graph.clone(), Context(TARGETS["cpu"], "fp32")
        (outcome,) = rewrite(SizedGraph(graph, component.inputs, cut.profile), context, (ATTENTION_FORM,))
        sized[latents] = outcome.detail if outcome.applied else ""
        feeds = {"latents": np.random.default_rng(0).standard_normal((2, latents, 16), dtype=np.float32)}
        assert Subject("processor_block", cut, before, [feeds]).distance(graph) < EXACT
    assert sized == {1023: "", 1024: "0.attention: in blocks"}


@pytest.mark.parametrize(
    ("model", "component", "rules", "reason"),
    [
        ("conv", "encoder", (), "no fused kernel in fp16 for 16 x 90 x 26 x 26"),
        ("language", "encoder", (), "the mask is an input"),
        ("fourier", "encoder", (SEPARABLE_POSITIONS,), "another rule has split its scores or its sums"),
        ("texts", "decoder", (ABSORBED_ATTENTION,), "another rule has removed its keys or values"),
        ("flow", "encoder_fold", (), "no softmax over scores by head"),
    ],
)
def test_declines_what_is_no_plain_attention(subject, model, component, rules, reason):
    given = subject(model, component)
    graph, (*_, outcome) = given.rewritten(*rules, ATTENTION_FORM, target="cuda", precision="fp16")
    assert not outcome.applied
    assert outcome.detail == reason
    assert not fused(graph)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A bundle for `cuda` in FP16, its source, and the source's traces."""
    family, config = FAMILIES[SMALL["language"][0]], SMALL["language"][1]
    module, traces = randomise(family.build(config)), SharedTraces()
    blueprint = Blueprint(
        source=Source("language", family.name, weights_sha256(module), dataclasses.asdict(config), pretrained=False),
        cut=family.cut(module),
        golden=(family.sample(config, 2, np.random.default_rng(0)),),
    )
    path = tmp_path_factory.mktemp("fused") / "bundle"
    export_bundle(blueprint, path, "fp16", "cuda", tracer=traces)
    return path, blueprint, traces


def test_a_bundle_for_cuda_verifies_on_a_processor(exported):
    path, _, _ = exported
    bundle = load_bundle(path)
    for name in ("processor_block", "decoder"):
        entry = bundle.manifest.component(name)
        (node,) = fused(ir.load(bundle.file(entry.onnx)))
        assert all(value.dtype == ir.DataType.FLOAT16 for value in (*node.inputs, *node.outputs))
        assert next(o for o in stored_outcomes(bundle.file(entry.onnx)) if o.rule == "attention-form").applied
        assert entry.flops == stored_outcomes(bundle.file(entry.onnx))[-1].after.flops
    report = verify(path, "onnxruntime")
    assert report.passed, report


def test_tensorrt_is_told_to_take_another_bundle(exported):
    path, _, _ = exported
    (found,) = {(f.verdict, f.message, f.remedy) for f in check(path, "jetson-orin").findings if f.check == "PF001"}
    assert found[0] == "blocked"
    assert "com.microsoft.MultiHeadAttention" in found[1]
    assert "export for this target" in found[2]


def test_a_fault_in_the_operator_is_found_there(exported, tmp_path):
    path, blueprint, traces = exported
    assert not bisect(path, blueprint, backend="onnxruntime", tracer=traces).diagnoses

    def edit(model: ir.Model) -> None:
        (node,) = fused(model)
        key, value = node.inputs[1:3]
        node.replace_input_with(1, value)
        node.replace_input_with(2, key)

    broken = seed(path, tmp_path / "broken", "processor_block", edit)
    assert not verify(broken, "onnxruntime").passed
    (diagnosis,) = bisect(broken, blueprint, backend="onnxruntime", tracer=traces).diagnoses
    assert (diagnosis.component, diagnosis.node, diagnosis.op_type) == (
        "processor_block",
        "0.attention/fused",
        "MultiHeadAttention",
    )
