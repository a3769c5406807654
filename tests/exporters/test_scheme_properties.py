"""Scales and zero points of random ranges: the integers cover the range, and zero is one of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_exporters.precision.integers.scheme import SCHEMES

LIMITS = {"uint8": (0, 255), "int8": (-127, 127)}
SIZES = st.just(0.0) | st.floats(2.0**-60, 2.0**60)


@pytest.mark.parametrize("name", [name for name in SCHEMES if name])
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(below=SIZES, above=SIZES)
def test_integers_cover_calibrated_bounds(name: str, below: float, above: float) -> None:
    scheme = SCHEMES[name]
    low, high = LIMITS[scheme.activation]
    scale, zero = scheme.activations((-below, above))
    assert scale.dtype == np.float32
    assert scale > 0
    assert low <= zero <= high
    if scheme.symmetric:
        assert zero == 0
    half = 0.501 * float(scale)  # rounding the zero point moves the range by at most half a step
    assert (low - zero) * float(scale) <= -below + half
    assert (high - zero) * float(scale) >= above - half


@pytest.mark.parametrize("name", [name for name in SCHEMES if name])
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(below=SIZES, above=SIZES, share=st.floats(0, 1))
def test_a_value_inside_the_bounds_is_off_by_at_most_a_step(
    name: str, below: float, above: float, share: float
) -> None:
    scheme = SCHEMES[name]
    low, high = LIMITS[scheme.activation]
    scale, zero = scheme.activations((-below, above))
    value = above * share - below * (1 - share)
    stored = np.clip(np.rint(value / float(scale)) + zero, low, high)
    assert abs((stored - zero) * float(scale) - value) <= 1.001 * float(scale)
