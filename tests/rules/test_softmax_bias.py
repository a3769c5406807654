from __future__ import annotations

import pytest

from perceiver_exporters.rules.attention.softmax_bias import SOFTMAX_BIAS
from perceiver_exporters.rules.products.packed_projections import PACKED_PROJECTIONS

from .conftest import EXACT


@pytest.mark.parametrize("model", ["fourier", "texts"])
def test_self_attention_keeps_the_queries_bias_alone(subject, model):
    given = subject(model, "processor_block")
    graph, (outcome,) = given.rewritten(SOFTMAX_BIAS)
    assert outcome.detail == "1 key biases dropped, 1 value biases folded into output biases"
    names = {str(node.name) for node in graph.graph if node.op_type == "Add"}
    assert not [name for name in names if "attention.key" in name or "attention.value" in name]
    assert [name for name in names if "attention.query" in name]
    assert given.distance(graph) < EXACT


def test_a_masked_softmax_sums_to_one_as_well(subject):
    given = subject("texts", "encoder")
    graph, (outcome,) = given.rewritten(SOFTMAX_BIAS)
    assert outcome.applied
    assert given.distance(graph) < EXACT


def test_packs_products_whose_biases_are_gone(subject):
    given = subject("fourier", "processor_block")
    graph, outcomes = given.rewritten(SOFTMAX_BIAS, PACKED_PROJECTIONS)
    assert all(outcome.applied for outcome in outcomes)
    biases = [node for node in graph.graph if node.op_type == "Add" and "part_bias" in str(node.name)]
    assert len(biases) == 1
    assert given.distance(graph) < EXACT


def test_declines_sums_that_are_normalised_later(subject):
    given = subject("flow", "encoder_fold")
    graph, (outcome,) = given.rewritten(SOFTMAX_BIAS)
    assert outcome.detail == "no softmax over keys or values with a bias"
    assert given.distance(graph) == 0
