from __future__ import annotations

from perceiver_exporters.rules.chunked_attention import CHUNKED_ATTENTION


def test_says_what_is_chunked(subject):
    given = subject("flow", "encoder_fold")
    graph, (outcome,) = given.rewritten(CHUNKED_ATTENTION)
    assert outcome.applied
    assert outcome.detail == "18 of up to 18 rows at a time, m, total, acc carried from one to the next"
    assert given.distance(graph) == 0


def test_says_what_runs_whole(subject):
    _, (outcome,) = subject("fourier", "encoder").rewritten(CHUNKED_ATTENTION)
    assert not outcome.applied
    assert outcome.detail == "runs whole"
