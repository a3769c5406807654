from __future__ import annotations

import pytest

from perceiver_exporters.rules.constants import token_tables
from perceiver_exporters.rules.constants.token_tables import TOKEN_TABLES

from .conftest import EXACT


@pytest.mark.parametrize("model", ["language", "texts"])
def test_keys_and_values_are_looked_up(subject, model):
    given = subject(model, "encoder")
    graph, (outcome,) = given.rewritten(TOKEN_TABLES)
    assert outcome.applied
    assert outcome.after.flops < outcome.before.flops
    names = [str(node.name) for node in graph.graph]
    assert not [name for name in names if "input_norm" in name or "key/MatMul" in name or "value/MatMul" in name]
    assert given.distance(graph) < EXACT


def test_shorter_texts_use_the_first_positions(subject):
    given = subject("language", "encoder")
    graph, _ = given.rewritten(TOKEN_TABLES)
    short = [{name: array[:, :7].copy() for name, array in feeds.items()} for feeds in given.feeds]
    assert given.distance(graph, short) < EXACT


def test_declines_other_inputs_and_large_tables(subject, monkeypatch):
    given = subject("language", "decoder")
    _, (outcome,) = given.rewritten(TOKEN_TABLES)
    assert outcome.detail == "no keys and values are projected from embedded tokens alone"
    monkeypatch.setattr(token_tables, "MAX_TABLE_BYTES", 1000)
    graph, (outcome,) = subject("language", "encoder").rewritten(TOKEN_TABLES)
    assert "tables of" in outcome.detail
    assert subject("language", "encoder").distance(graph) == 0
