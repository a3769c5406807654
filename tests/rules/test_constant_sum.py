from __future__ import annotations

import pytest

from perceiver_exporters.rules.attention.separable_positions import SEPARABLE_POSITIONS
from perceiver_exporters.rules.constants.constant_query import CONSTANT_QUERY
from perceiver_exporters.rules.constants.constant_sum import CONSTANT_SUM

from .conftest import EXACT


@pytest.mark.parametrize(("model", "component"), [("conv", "encoder"), ("fourier", "decoder"), ("texts", "encoder")])
def test_a_bias_joins_the_latents(subject, model, component):
    given = subject(model, component)
    without, _ = given.rewritten(CONSTANT_QUERY)
    graph, (_, outcome) = given.rewritten(CONSTANT_QUERY, CONSTANT_SUM)
    assert outcome.detail == "layer/Add"
    assert len(sums(graph)) == len(sums(without)) - 1
    assert given.distance(graph) < EXACT


def test_declines_residuals_and_integers(subject):
    given = subject("fourier", "processor_block")
    graph, (outcome,) = given.rewritten(CONSTANT_SUM)
    assert outcome.detail == "no successive additions of constants"
    assert given.distance(graph) == 0
    _, outcomes = subject("conv", "encoder").rewritten(CONSTANT_QUERY, CONSTANT_SUM, precision="int8-dynamic")
    assert outcomes[-1].detail == "an integer product is fused with its own bias"


def test_tables_of_two_axes_stay_apart(subject):
    """One row for each point of the grid would be far larger than both."""
    _, outcomes = subject("fourier", "encoder").rewritten(CONSTANT_QUERY, SEPARABLE_POSITIONS, CONSTANT_SUM)
    separated, summed = outcomes[1:]
    assert separated.applied
    assert summed.applied
    assert summed.after.constants <= summed.before.constants


def sums(graph):
    return [node for node in graph.graph if node.op_type == "Add"]
