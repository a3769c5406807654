from __future__ import annotations

from perceiver_exporters.rules.attention.separable_queries import SEPARABLE_QUERIES

from .conftest import EXACT


def test_queries_of_a_grid_are_never_projected(subject):
    given = subject("flow", "decoder")
    graph, (outcome,) = given.rewritten(SEPARABLE_QUERIES)
    assert outcome.applied
    assert "16 of 34 channels live" in outcome.detail
    assert outcome.after.flops < outcome.before.flops
    assert not [node for node in graph.graph if "attention.query/MatMul" in str(node.name)]
    assert given.distance(graph) < EXACT


def test_declines_where_queries_are_no_grid(subject):
    for model, component in [("language", "decoder"), ("fourier", "decoder"), ("flow", "encoder_fold")]:
        given = subject(model, component)
        graph, (outcome,) = given.rewritten(SEPARABLE_QUERIES)
        assert outcome.detail == "no queries are normalised tokens of content and grid positions"
        assert given.distance(graph) == 0
