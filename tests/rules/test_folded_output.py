from __future__ import annotations

from perceiver_exporters.rules.products.folded_output import FOLDED_OUTPUT

from .conftest import EXACT


def test_one_head_gives_its_output_at_once(subject):
    given = subject("texts", "decoder")  # values of 64, an output of 48
    graph, (outcome,) = given.rewritten(FOLDED_OUTPUT)
    assert outcome.applied
    assert outcome.after.flops < outcome.before.flops
    assert outcome.after.constants < outcome.before.constants
    assert not [node for node in graph.graph if "attention.output/MatMul" in str(node.name)]
    assert given.distance(graph) < EXACT


def test_declines_a_wider_output_and_several_heads(subject):
    for model, component, reason in [
        ("fourier", "encoder", "folded"),
        ("language", "decoder", "no attention of one head"),
    ]:
        given = subject(model, component)
        graph, (outcome,) = given.rewritten(FOLDED_OUTPUT)
        assert not outcome.applied
        assert reason in outcome.detail
        assert given.distance(graph) == 0
