from __future__ import annotations

import dataclasses

import numpy as np

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.rules.attention.unmasked_attention import UNMASKED_ATTENTION


def with_constant_mask(given, everything):
    """The same component, in which a constant stands where its mask decides."""
    graph = given.graph.clone()
    chosen = next(node for node in graph.graph if node.op_type == "Where")
    draft = NodeBuilder(graph.graph, "mask", chosen)
    mask = np.ones((1, 20), bool)
    mask[0, -1] = everything
    constant = draft.constant(mask, "mask")
    replace(chosen.inputs[0], draft("Identity", constant))
    chosen.replace_input_with(0, constant)
    return dataclasses.replace(given, graph=graph)


def masks(graph):
    return sum(node.op_type == "Min" for node in graph.graph)


def test_a_mask_of_ones_is_dropped(subject):
    given = with_constant_mask(subject("language", "encoder"), everything=True)
    graph, (outcome,) = given.rewritten(UNMASKED_ATTENTION)
    assert outcome.applied
    assert masks(graph) == masks(given.graph) - 1
    assert given.distance(graph) == 0


def test_declines_a_mask_that_excludes_and_one_that_is_an_input(subject):
    for given in (with_constant_mask(subject("language", "encoder"), everything=False), subject("texts", "encoder")):
        graph, (outcome,) = given.rewritten(UNMASKED_ATTENTION)
        assert not outcome.applied
        assert masks(graph) == masks(given.graph)
    _, (outcome,) = subject("fourier", "encoder").rewritten(UNMASKED_ATTENTION)
    assert outcome.detail == "no attention is masked"
