from __future__ import annotations

import onnx_ir as ir

from perceiver_exporters.rules.products.folded_head import FOLDED_HEAD

from .conftest import EXACT


def names(graph: ir.Model) -> list[str]:
    return [str(node.name) for node in graph.graph if node.op_type == "MatMul"]


def test_the_last_residual_is_never_made(subject):
    given = subject("flow", "decoder")
    graph, (outcome,) = given.rewritten(FOLDED_HEAD)
    assert outcome.applied, outcome.detail
    assert "attention.layer.mlp.2 into head" in outcome.detail
    assert outcome.after.flops < outcome.before.flops
    assert outcome.after.written < outcome.before.written
    assert "attention.layer.mlp.2/MatMul" not in names(graph)
    assert {"attention.layer.mlp.2/into_head", "head/direct"} <= set(names(graph))
    assert given.distance(graph) < EXACT


def test_declines_where_another_layer_reads_too(subject):
    given = subject("fourier", "processor_block")  # every sum is read by a normalisation as well
    graph, (outcome,) = given.rewritten(FOLDED_HEAD)
    assert not outcome.applied
    assert outcome.detail == "no linear layer is read by another linear layer only"
    assert given.distance(graph) == 0


def test_declines_what_costs_more(subject):
    given = subject("language", "decoder")  # a residual of 32, a vocabulary of 50
    graph, (outcome,) = given.rewritten(FOLDED_HEAD)
    assert not outcome.applied
    assert "head folded 0.00013 GFLOP, as it is 0.00010 GFLOP" in outcome.detail
    assert given.distance(graph) == 0


def test_one_layer_behind_another(subject):
    """The multimodal model projects to a common width before each modality's head: that goes, then the residual."""
    given = subject("multimodal", "image_decoder")
    graph, (outcome,) = given.rewritten(FOLDED_HEAD)
    assert outcome.detail == "project into head; attention.layer.mlp.2 into project"
    assert not {"head/MatMul", "project/MatMul", "attention.layer.mlp.2/MatMul"} & set(names(graph))
    assert given.distance(graph) < EXACT


def test_a_layer_just_folded_is_folded_on(subject):
    """The new sum is known by its layers: nothing has inferred its shape yet."""
    given = subject("narrow multimodal", "image_decoder")
    graph, (outcome,) = given.rewritten(FOLDED_HEAD)
    assert outcome.detail == "attention.layer.mlp.2 into project; attention.layer.mlp.2, project into head"
    assert given.distance(graph) < EXACT


def test_values_meet_the_output_projection_once(subject):
    given = subject("flow", "decoder_begin")
    graph, (outcome,) = given.rewritten(FOLDED_HEAD)
    assert outcome.applied
    assert len(names(graph)) == 2  # keys, and values through the output projection
    assert given.distance(graph) < EXACT
