from __future__ import annotations

from perceiver_exporters.rules.constants.gathered_query import GATHERED_QUERY

from .conftest import EXACT


def test_the_table_is_projected_at_export(subject):
    given = subject("language", "decoder")
    graph, (outcome,) = given.rewritten(GATHERED_QUERY)
    assert outcome.applied
    assert outcome.after.flops < outcome.before.flops
    names = [str(node.name) for node in graph.graph]
    assert not [name for name in names if "query/MatMul" in name or "query_norm" in name]
    assert given.distance(graph) < EXACT


def test_declines_other_queries(subject):
    for model, component in [("fourier", "processor_block"), ("flow", "decoder")]:
        given = subject(model, component)
        graph, (outcome,) = given.rewritten(GATHERED_QUERY)
        assert outcome.detail == "no query is looked up in a constant table"
        assert given.distance(graph) == 0
