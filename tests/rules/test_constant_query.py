from __future__ import annotations

import pytest

from perceiver_exporters.ir.graph import products
from perceiver_exporters.rules.constants.constant_query import CONSTANT_QUERY

from .conftest import EXACT


@pytest.mark.parametrize(
    ("model", "component"),
    [("fourier", "encoder"), ("fourier", "decoder"), ("language", "encoder"), ("flow", "encoder_begin")],
)
@pytest.mark.parametrize("target", ["cpu", "rtx"])
def test_the_query_is_projected_at_export(subject, model, component, target):
    given = subject(model, component)
    graph, (outcome,) = given.rewritten(CONSTANT_QUERY, target=target)
    assert outcome.applied
    assert outcome.after.flops < outcome.before.flops
    assert not [n for n in products(graph.graph) if "query" in str(n.name)]
    assert given.distance(graph) < EXACT


def test_engines_keep_the_batch_of_the_query(subject):
    graph, _ = subject("fourier", "encoder").rewritten(CONSTANT_QUERY, target="rtx")
    scores = next(n for n in products(graph.graph) if str(n.name) == "layer.attention/MatMul")
    assert scores.inputs[0] is not None
    assert scores.inputs[0].shape is not None
    assert not isinstance(scores.inputs[0].shape[0], int)


def test_declines_where_queries_come_from_inputs(subject):
    for model, component in [("fourier", "processor_block"), ("flow", "encoder_fold")]:
        given = subject(model, component)
        graph, (outcome,) = given.rewritten(CONSTANT_QUERY)
        assert not outcome.applied
        assert outcome.detail == "no query is independent of the inputs"
        assert outcome.before == outcome.after
        assert given.distance(graph) == 0
