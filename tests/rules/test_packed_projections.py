from __future__ import annotations

from perceiver_exporters.ir.graph import products
from perceiver_exporters.rules.products.packed_projections import PACKED_PROJECTIONS

from .conftest import EXACT


def test_one_product_in_the_place_of_three(subject):
    given = subject("fourier", "processor_block")
    graph, (outcome,) = given.rewritten(PACKED_PROJECTIONS)
    assert outcome.applied
    assert outcome.after.flops == outcome.before.flops
    assert len(list(products(graph.graph))) == len(list(products(given.graph.graph))) - 2
    assert given.distance(graph) < EXACT


def test_declines_cross_attention(subject):
    given = subject("fourier", "encoder")
    graph, (outcome,) = given.rewritten(PACKED_PROJECTIONS)
    assert outcome.detail == "no attention projects queries, keys and values from one input"
    assert given.distance(graph) == 0
