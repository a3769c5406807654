"""Online softmax over chunks of inputs equals the layer on all inputs."""

from __future__ import annotations

import pytest
import torch
from factories.weights import randomise
from models.oracle import relative

from perceiver_deploy.models.attention import CrossAttentionLayer
from perceiver_deploy.models.config import CrossAttentionConfig
from perceiver_deploy.models.online_softmax import Begin, Finish, Update

INPUTS, LATENTS, BATCH = 203, 11, 3


def layer(**changes):
    return randomise(CrossAttentionLayer(24, 40, CrossAttentionConfig(2, 32, 48, 2, **changes)), sharpness=3.0)


def chunked(module, query, inputs, mask, chunk):
    q, m, total, acc = Begin(module)(query)
    masks = [None] * len(inputs.split(chunk, 1)) if mask is None else mask.split(chunk, 1)
    for part, chunk_mask in zip(inputs.split(chunk, 1), masks, strict=True):
        m, total, acc = Update(module)(q, m, total, acc, part, chunk_mask)
    return Finish(module)(query, total, acc)


@pytest.mark.parametrize("chunk", [1, 16, 202, 203, 500])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("residual", [True, False], ids=["residual", "no residual"])
def test_equals_the_whole(chunk, masked, residual):
    module = layer(query_residual=residual)
    query, inputs = torch.randn(BATCH, LATENTS, 24), torch.randn(BATCH, INPUTS, 40)
    mask = torch.rand(BATCH, INPUTS) > 0.5 if masked else None
    if masked:
        mask[0, :150] = False  # whole chunks without a single input to attend
    expected = module(query, inputs, mask)
    assert relative(chunked(module, query, inputs, mask, chunk), expected) < 1e-6
    assert relative(chunked(module, query, inputs.roll(1, 2), mask, chunk), expected) > 1e-2


@pytest.mark.parametrize("chunk", [50, 203])
def test_a_row_without_an_input_attends_all_equally(chunk):
    module = layer()
    query, inputs = torch.randn(2, LATENTS, 24), torch.randn(2, INPUTS, 40)
    mask = torch.rand(2, INPUTS) > 0.5
    mask[0] = False
    whole, parts = module(query, inputs, mask), chunked(module, query, inputs, mask, chunk)
    assert relative(parts, whole) < 1e-6
    value = module.attention.value(module.input_norm(inputs[:1])).mean(1, keepdim=True).expand(-1, LATENTS, -1)
    assert relative(whole[:1], module.update(query[:1], module.attention.output(value))) < 1e-6


def test_scores_of_thousands_neither_overflow_nor_lose_the_later_chunks():
    module = layer()
    module.attention.query.weight.mul_(40)
    module.attention.key.weight.mul_(40)
    query, inputs = torch.randn(BATCH, LATENTS, 24), torch.randn(BATCH, INPUTS, 40)
    expected = module(query, inputs)
    assert relative(chunked(module, query, inputs, None, 7), expected) < 1e-3
    assert torch.isfinite(expected).all()


def test_queries_of_batch_one_stand_for_every_row():
    module = layer()
    query, inputs = torch.randn(1, LATENTS, 24), torch.randn(BATCH, INPUTS, 40)
    assert relative(module(query, inputs), module(query.expand(BATCH, -1, -1), inputs)) < 1e-6
