from __future__ import annotations

import pytest

from perceiver_exporters.rules.attention.absorbed_attention import ABSORBED_ATTENTION
from perceiver_exporters.rules.constants.constant_query import CONSTANT_QUERY

from .conftest import EXACT


@pytest.mark.parametrize(
    ("model", "component"),
    [("fourier", "encoder"), ("conv", "decoder"), ("texts", "decoder"), ("flow", "encoder_fold")],
)
@pytest.mark.parametrize("rules", [(ABSORBED_ATTENTION,), (CONSTANT_QUERY, ABSORBED_ATTENTION)])
def test_keys_and_values_are_never_projected(subject, model, component, rules):
    given = subject(model, component)
    graph, outcomes = given.rewritten(*rules)
    assert outcomes[-1].applied
    assert outcomes[-1].after.flops < outcomes[-1].before.flops
    assert not [node for node in graph.graph if "attention.key/MatMul" in str(node.name)]
    assert given.distance(graph) < EXACT


def test_declines_with_the_flops_that_speak_against_it(subject):
    for model, component in [("language", "encoder"), ("fourier", "processor_block")]:
        given = subject(model, component)
        graph, (outcome,) = given.rewritten(ABSORBED_ATTENTION)
        assert not outcome.applied
        assert "absorbed" in outcome.detail
        assert "GFLOP" in outcome.detail
        assert given.distance(graph) == 0


def test_declines_several_heads_in_integers(subject):
    _, (outcome,) = subject("conv", "decoder").rewritten(ABSORBED_ATTENTION, precision="int8")
    assert outcome.detail == "a value projection per head has no integer kernel"
