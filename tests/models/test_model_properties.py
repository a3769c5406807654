"""Random sizes: positions against their formula, chunked attention against the whole, configs written and read."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from factories.families import SMALL
from factories.weights import randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from models.oracle import relative
from models.test_online_softmax import chunked

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.attention import CrossAttentionLayer
from perceiver_deploy.models.config import CrossAttentionConfig
from perceiver_deploy.models.positions import SPACINGS, GridPositions
from perceiver_runtime.format.schema import decode, encode

SIZES = st.lists(st.tuples(st.integers(2, 6), st.integers(2, 40)), min_size=1, max_size=3)


@settings(max_examples=30, derandomize=True, deadline=None, database=None)
@given(axes=SIZES, bands=st.integers(1, 5), spacing=st.sampled_from(["full", "subsampled"]), draw=st.randoms())
def test_features_of_a_point_follow_the_formula(axes: Any, bands: int, spacing: Any, draw: Any) -> None:
    """Jaegle et al. 2021, appendix D: x, sin(pi f x) and cos(pi f x), f from 1 to half the resolution."""
    sizes, resolution = zip(*axes, strict=True)
    index = [draw.randrange(size) for size in sizes]
    point = [SPACINGS[spacing](size)[i] for size, i in zip(sizes, index, strict=True)]
    angles = [
        math.pi * x * (1 + (highest / 2 - 1) * band / max(bands - 1, 1))
        for x, highest in zip(point, resolution, strict=True)
        for band in range(bands)
    ]
    expected = [*point, *map(math.sin, angles), *map(math.cos, angles)]
    positions = GridPositions(sizes, resolution, bands, spacing)
    got = positions(torch.tensor([index]))[0]
    np.testing.assert_allclose(got.numpy(), np.array(expected, np.float32), atol=1e-6)
    assert torch.equal(positions.all()[np.ravel_multi_index(index, sizes)], got)


@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(
    heads=st.integers(1, 3),
    dims=st.tuples(*[st.integers(1, 8)] * 2),
    widths=st.tuples(*[st.integers(2, 12)] * 2),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 40)),
    chunk=st.integers(1, 45),
    residual=st.booleans(),
    masked=st.booleans(),
)
def test_chunked_attention_equals_the_whole(
    heads: int, dims: Any, widths: Any, sizes: Any, chunk: int, residual: bool, masked: bool
) -> None:
    batch, queries, inputs = sizes
    config = CrossAttentionConfig(heads, heads * dims[0], heads * dims[1], query_residual=residual)
    module = randomise(CrossAttentionLayer(*widths, config), sharpness=3.0)  # type: ignore[call-arg]
    query, values = torch.randn(batch, queries, widths[0]), torch.randn(batch, inputs, widths[1])
    mask = torch.rand(batch, inputs) > 0.5 if masked else None
    assert relative(chunked(module, query, values, mask, chunk), module(query, values, mask)) < 1e-5


@pytest.mark.parametrize("family", SMALL)
@settings(max_examples=20, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_a_config_is_what_was_written(family: str, data: Any) -> None:
    config = SMALL[family]
    numbers = [f.name for f in dataclasses.fields(config) if type(getattr(config, f.name)) is int]
    drawn = {name: data.draw(st.integers(1, 1 << 16), name) for name in numbers}
    changed = dataclasses.replace(config, **drawn)
    assert decode(FAMILIES[family].config, json.loads(json.dumps(encode(changed))), family) == changed
