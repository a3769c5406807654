"""Ranges and number formats, against their definitions written out."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx
import pytest

from perceiver_exporters.precision.calibration import METHODS
from perceiver_exporters.precision.calibration.histogram import HALF, Histogram
from perceiver_exporters.precision.calibration.methods import _divergence
from perceiver_exporters.precision.formats import BF16, FP16, Format

INFO = {"fp16": np.finfo(np.float16), "bf16": ml_dtypes.finfo(ml_dtypes.bfloat16)}
RANDOM = np.random.default_rng(0)


def histogram(counts: dict[int, int], low: float, high: float) -> Histogram:
    """Bins one wide: bin n is [n, n + 1)."""
    made = Histogram(float(HALF), low, high)
    for index, count in counts.items():
        made.counts[index + HALF] = count
    return made


def test_an_empty_histogram() -> None:
    empty = Histogram()
    empty.add(np.zeros((0, 3), np.float32))
    assert (empty.limit, empty.low, empty.high) == (2.0**-24, math.inf, -math.inf)
    assert empty.counts.tolist() == [0] * 4096
    assert {name: method(empty) for name, method in METHODS.items()} == dict.fromkeys(METHODS, (0.0, 0.0))


@pytest.mark.parametrize(
    ("values", "limit"),
    [([2.0**-25], 2.0**-24), ([2.0**-24], 2.0**-23), ([-(2.0**-24)], 2.0**-23), ([0.5, -3.0], 4.0), ([4.0, 1.0], 8.0)],
)
def test_the_limit_is_the_next_power_of_two(values: list[float], limit: float) -> None:
    made = Histogram()
    for value in values:
        made.add(np.array([[value]], np.float32))
    assert made.limit == limit
    assert made.width == limit / 2048
    assert (made.low, made.high) == (min(values), max(values))
    bins = sorted(math.floor(value * 2048 / limit) + 2048 for value in values)
    assert np.flatnonzero(made.counts).tolist() == bins


def test_magnitudes() -> None:
    made = histogram({-3: 2, -1: 3, 0: 5, 2: 7}, -3.0, 2.5)
    expected = np.zeros(HALF, np.int64)
    expected[[0, 2]] = 3 + 5, 2 + 7
    np.testing.assert_array_equal(made.magnitudes, expected)


@pytest.mark.parametrize(
    ("outer", "bounds"),
    [(5, (-9.0, 20.0)), (6, (-10.0, 20.5))],  # of 100,000 values five may be outside on each side
)
def test_percentile_to_the_bin(outer: int, bounds: tuple[float, float]) -> None:
    inside = 100_000 - 2 * outer
    made = histogram({-10: outer, -9: inside // 2, 19: inside - inside // 2, 20: outer}, -10.0, 20.5)
    assert METHODS["percentile"](made) == bounds


def divergence(counts: list[float], kept: int) -> float:
    """Kullback and Leibler's: of the counts clipped to `kept` bins from the same in 128 levels of equal counts."""
    p = counts[:kept]
    p[-1] += sum(counts[kept:])
    q = [0.0] * kept
    for level in range(128):
        bins = [n for n in range(kept) if min(n * 128 // kept, 127) == level and counts[n]]
        for n in bins:
            q[n] = sum(counts[each] for each in bins) / len(bins)
    return sum(
        a / sum(p) * math.log(a / sum(p) / max(b / max(sum(q), 1.0), 1e-12)) for a, b in zip(p, q, strict=True) if a
    )


def threshold(made: Histogram) -> int:
    """The least divergence of 128, 136, 144, ... bins and of all."""
    counts = made.magnitudes.astype(float).tolist()
    counts[0] = min(counts[:2])
    used = max(n for n, count in enumerate(counts) if count) + 1
    return min([*range(128, used, 8), max(used, 128)], key=lambda n: divergence(counts, n))


def _bins(values: np.ndarray) -> Histogram:
    bins, counts = np.unique(np.floor(values).astype(int), return_counts=True)
    return histogram(dict(zip(bins.tolist(), counts.tolist(), strict=True)), float(values.min()), float(values.max()))


SHAPES = {
    "normal": RANDOM.standard_normal(20_000) * 60,
    "with outliers": np.concatenate([RANDOM.standard_normal(20_000) * 40, [700.0, -650.0]]),
    "heavy tails": np.clip(RANDOM.standard_t(2, 20_000) * 30, -900, 900),
    "few bins": RANDOM.standard_normal(5_000) * 9,
    "gaps": np.concatenate([RANDOM.integers(0, 40, 5_000) * 3.0, 131 + RANDOM.integers(0, 20, 50) * 7.0]) + 0.5,
    "zeros": np.maximum(RANDOM.standard_normal(20_000) * 60, 0),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_entropy_is_the_least_divergence(shape: str) -> None:
    made = _bins(SHAPES[shape])
    best = float(threshold(made))
    assert METHODS["entropy"](made) == (min(0.0, max(-best, made.low)), min(best, made.high))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kept", [128, 130, 136, 200, 256, 511])
def test_divergence(shape: str, kept: int) -> None:
    counts = _bins(SHAPES[shape]).magnitudes.astype(np.float64)
    assert _divergence(counts, kept) == pytest.approx(divergence(counts.tolist(), kept), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("narrow", [FP16, BF16], ids=lambda narrow: narrow.name)
def test_formats_are_what_their_types_can(narrow: Format) -> None:
    def rounded(value: float) -> float:
        return float(np.asarray(value).astype(narrow.numpy))

    info = INFO[narrow.name]
    assert narrow.largest == float(info.max)
    assert all(rounded(n) == n for n in range(narrow.exact + 1))
    assert rounded(narrow.exact + 1) != narrow.exact + 1
    assert narrow.min_peak == 16 * float(info.smallest_subnormal if narrow is FP16 else info.smallest_normal)
    assert narrow.max_addends == (int(info.max) if narrow is FP16 else narrow.exact)


def test_peaks_that_a_format_holds() -> None:
    """Four times as much as was seen has to fit."""
    assert FP16.max_peak == 65504 / 4
    held = (0.0, 2.0**-20, 1.0, 65504 / 4)
    assert [FP16.holds(peak) for peak in held] == [True] * 4
    assert [FP16.holds(peak) for peak in (2.0**-21, 65504 / 4 + 1, math.inf)] == [False] * 3


@pytest.mark.parametrize(("operator", "since"), BF16.since.items())
def test_operators_that_have_the_type_later(operator: str, since: int) -> None:
    def has(version: int) -> bool:
        constraints = onnx.defs.get_schema(operator, version).type_constraints
        return any("tensor(bfloat16)" in constraint.allowed_type_strs for constraint in constraints)

    assert has(since)
    assert not has(since - 1)
