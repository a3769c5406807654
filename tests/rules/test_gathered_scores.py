from __future__ import annotations

from dataclasses import replace

import numpy as np

from perceiver_exporters.rules.attention.gathered_scores import GATHERED_SCORES
from perceiver_exporters.rules.constants.gathered_query import GATHERED_QUERY
from perceiver_runtime.tensors import Profile, Range

from .conftest import EXACT


def test_scores_of_video_points_are_looked_up(subject):
    given = subject("multimodal", "image_decoder")
    graph, (outcome,) = given.rewritten(GATHERED_SCORES)
    assert outcome.applied
    assert "from 3 tables" in outcome.detail
    names = [str(node.name) for node in graph.graph]
    assert not [name for name in names if "query/MatMul" in name or "query_norm" in name]
    assert given.distance(graph) < EXACT
    index = given.feeds[0]["index"]
    every_order = [{**given.feeds[0], "index": asked} for asked in (index[::-1].copy(), index[:1], np.repeat(index, 2))]
    assert given.distance(graph, every_order) < EXACT


def test_padded_queries_of_one_table_are_projected_at_export(subject):
    given = subject("multimodal", "audio_decoder")
    graph, (gathered, scores) = given.rewritten(GATHERED_QUERY, GATHERED_SCORES)
    assert gathered.applied
    assert not scores.applied
    assert not [node for node in graph.graph if "query/MatMul" in str(node.name)]
    assert given.distance(graph) < EXACT


def test_declines_where_tables_have_more_rows_than_there_are_queries(subject):
    given = subject("multimodal", "image_decoder")
    pixels = Range(1, 1, given.cut.profile.dimensions["pixels"].max)
    profile = Profile("one", {**given.cut.profile.dimensions, "pixels": pixels})
    graph, (outcome,) = replace(given, cut=replace(given.cut, profile=profile)).rewritten(GATHERED_SCORES)
    assert outcome.detail.startswith("looked up ")
    assert given.distance(graph) == 0


def test_is_not_for_engines(subject):
    _, (outcome,) = subject("multimodal", "image_decoder").rewritten(GATHERED_SCORES, target="jetson-orin")
    assert outcome.detail == "not for tensorrt"


def test_declines_other_queries(subject):
    for model, component in [("language", "decoder"), ("flow", "decoder"), ("multimodal", "label_decoder")]:
        given = subject(model, component)
        graph, (outcome,) = given.rewritten(GATHERED_SCORES)
        assert outcome.detail == "no queries are normalised sums of rows of several tables"
        assert given.distance(graph) == 0
