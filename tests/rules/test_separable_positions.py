from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx_ir.passes import common

from perceiver_deploy.models.positions import GridPositions
from perceiver_exporters.ir.builder import NodeBuilder
from perceiver_exporters.rules.attention import separable_positions
from perceiver_exporters.rules.attention.separable_positions import SEPARABLE_POSITIONS
from perceiver_exporters.rules.constants.constant_query import CONSTANT_QUERY
from perceiver_exporters.rules.matchers.grid_positions import split_by_axis

from .conftest import EXACT


@pytest.mark.parametrize(
    ("model", "component", "live"),
    [("fourier", "encoder", "3 of 21"), ("conv", "encoder", "8 of 26"), ("flow", "encoder_fold", "16 of 34")],
)
@pytest.mark.parametrize("rules", [(SEPARABLE_POSITIONS,), (CONSTANT_QUERY, SEPARABLE_POSITIONS)])
def test_only_content_is_multiplied_by_token(subject, model, component, live, rules):
    given = subject(model, component)
    graph, outcomes = given.rewritten(*rules)
    assert outcomes[-1].applied
    assert f"{live} channels live" in outcomes[-1].detail
    assert outcomes[-1].after.flops < 0.85 * outcomes[-1].before.flops
    norms = [node for node in graph.graph if node.op_type == "LayerNormalization"]
    assert not [node for node in norms if "input_norm" in str(node.name)]
    assert given.distance(graph) < EXACT


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_output_projection_is_folded_unless_it_is_in_integers(subject, precision):
    given = subject("conv", "encoder")
    graph, (outcome,) = given.rewritten(SEPARABLE_POSITIONS, precision=precision)
    folded = precision == "fp32"
    assert ("output projection folded" in outcome.detail) == folded
    assert any("attention.output/MatMul" in str(node.name) for node in graph.graph) != folded
    assert given.distance(graph) < EXACT


def test_the_output_projection_stays_where_it_is_cheaper(subject):
    """Wide latents: three sums into each of their channels are more than the values and one product."""
    given = subject("wide conv", "encoder")
    graph, (outcome,) = given.rewritten(SEPARABLE_POSITIONS)
    assert outcome.applied
    assert "folded" not in outcome.detail
    assert given.distance(graph) < EXACT


def test_shrinks_the_table_of_positions(subject, monkeypatch):
    monkeypatch.setattr(separable_positions, "MAX_TABLE_BYTES", 0)
    graph, (outcome,) = subject("conv", "encoder").rewritten(SEPARABLE_POSITIONS)
    assert outcome.after.constants < outcome.before.constants
    largest = max(v.const_value.size for v in graph.graph.initializers.values())
    assert largest <= 64 * 64  # a weight of the MLP


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_a_small_table_of_all_scores_is_added_at_once(subject, monkeypatch, most):
    monkeypatch.setattr(separable_positions, "MAX_TABLE_BYTES", most)
    given = subject("fourier", "encoder")
    graph, _ = given.rewritten(CONSTANT_QUERY, SEPARABLE_POSITIONS)
    assert any("with_positions" in str(node.name) for node in graph.graph) == bool(most)
    assert given.distance(graph) < EXACT


def test_finds_positions_that_the_graph_computes(subject):
    given = subject("fourier", "encoder")
    graph = given.graph.clone()
    table = next(v for v in graph.graph.initializers.values() if v.shape == (80, 18))
    spread = table.uses()[0][0]
    spread.replace_input_with(0, NodeBuilder(graph.graph, "tokens", spread)("Identity", table))
    common.ShapeInferencePass()(graph)
    rewritten, outcomes = dataclasses.replace(given, graph=graph).rewritten(CONSTANT_QUERY, SEPARABLE_POSITIONS)
    assert outcomes[-1].applied
    assert given.distance(rewritten) < EXACT


def test_declines_without_a_grid_and_for_other_backends(subject):
    for model, component, target, reason in [
        ("language", "encoder", "cpu", "no attention reads normalised tokens"),
        ("fourier", "processor_block", "cpu", "no attention reads normalised tokens"),
        ("fourier", "encoder", "jetson-orin", "not for tensorrt"),
    ]:
        given = subject(model, component)
        graph, (outcome,) = given.rewritten(SEPARABLE_POSITIONS, target=target)
        assert not outcome.applied
        assert reason in outcome.detail
        assert given.distance(graph) == 0


def test_a_table_is_split_by_axis_only_if_every_channel_has_one():
    table = GridPositions((6, 5), (6, 5), 3).all().numpy()
    grid = split_by_axis(table, 5)
    assert grid is not None
    whole = np.empty_like(table, np.float64).reshape(6, 5, -1)
    whole[..., grid.row_channels] = grid.rows[:, None]
    whole[..., grid.column_channels] = grid.columns[None]
    assert np.array_equal(whole.reshape(30, -1), table)
    assert split_by_axis(np.random.default_rng(0).standard_normal((30, 4)), 5) is None
    assert split_by_axis(table, 6) is None
