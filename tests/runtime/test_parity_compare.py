"""The comparison finds what differs, in FP64, and never passes what it can't compare."""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_runtime import open_session
from perceiver_runtime.errors import FeedError
from perceiver_runtime.measure import compare as compare_module
from perceiver_runtime.measure import tolerances
from perceiver_runtime.measure.compare import Bound, ParityReport, compare, distances, relative_l2
from perceiver_runtime.measure.parity import component_failure
from perceiver_runtime.measure.spread import Spread, rows_of, spread_of


def _compare(
    reference: Any, got: Any, tolerance: float = 1e-3, spread: float = 0.0, centred: float | None = None
) -> ParityReport:
    bound = Bound(tolerance, spread, centred)
    return compare(np.asarray(reference), np.asarray(got), component="c", tensor="t", mode="chained", bound=bound)


def test_equal_arrays() -> None:
    report = _compare(np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3), 0.0)
    assert report == ParityReport("c", "t", "chained", 0.0, 0.0, pytest.approx(1.0), (0, 0), 0, 0.0, True)  # type: ignore[arg-type]


def test_numbers() -> None:
    random = np.random.default_rng(0)
    reference = random.standard_normal((7, 5, 3))
    got = reference + random.standard_normal((7, 5, 3)) * 1e-2
    got[4, 2, 1] += 1
    report = _compare(reference, got, 1.0)
    difference = got - reference
    assert report.max_abs == pytest.approx(np.abs(difference).max())
    assert report.worst_index == (4, 2, 1)
    assert report.rel_l2 == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(reference))
    cosine = (reference * got).sum() / np.linalg.norm(reference) / np.linalg.norm(got)
    assert report.cosine == pytest.approx(cosine)
    assert report.passed
    assert not _compare(reference, got, report.rel_l2 * 0.999).passed


def test_blocks_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    reference, got = random.standard_normal((2, 50, 30)).astype(np.float32)
    whole = _compare(reference, got)
    monkeypatch.setattr(compare_module, "BLOCK", 7)
    blocks = _compare(reference, got)
    assert blocks.worst_index == whole.worst_index
    assert (blocks.rel_l2, blocks.cosine) == pytest.approx((whole.rel_l2, whole.cosine))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["got", "reference", "both"])
def test_nonfinite_never_passes(bad: float, side: str) -> None:
    reference, got = np.ones((4, 3)), np.ones((4, 3))
    for name, array in (("reference", reference), ("got", got)):
        if side in (name, "both"):
            array[2, 1] = bad
    report = _compare(reference, got, math.inf)
    assert not report.passed
    assert report.nonfinite == 1
    assert report.worst_index == (2, 1)
    assert report.max_abs == math.inf


@pytest.mark.parametrize("shape", [(3, 4), (12,), (4, 3, 1), (4, 2)])
def test_another_shape_never_passes(shape: tuple[int, ...]) -> None:
    report = _compare(np.ones((4, 3)), np.ones(shape), math.inf)
    assert not report.passed
    assert report.rel_l2 == math.inf


def test_zero_reference() -> None:
    assert _compare(np.zeros(3), np.zeros(3), 0.0).passed
    assert _compare(np.zeros(3), np.full(3, 1e-9), 1.0).rel_l2 == math.inf


def test_half_precision_is_accumulated_in_double() -> None:
    """The sum of these squares is far beyond FP16's range."""
    report = _compare(np.full(10_000, 300, np.float16), np.full(10_000, 303, np.float16), 0.02)
    assert report.rel_l2 == pytest.approx(0.01)


def test_integers_and_scalars() -> None:
    assert _compare(np.int64(3), np.int64(3)).passed
    assert not _compare(np.array([True, False]), np.array([True, True])).passed
    assert _compare(np.zeros((0, 3)), np.zeros((0, 3))).passed


def test_relative_l2_is_what_a_report_says_and_never_nan() -> None:
    zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert relative_l2(zeros, zeros) == 0.0
    assert relative_l2(zeros, ones) == math.inf
    assert relative_l2(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)
    for bad in (math.nan, math.inf):
        assert relative_l2(ones, np.full(3, bad)) == math.inf
        assert relative_l2(np.full(3, bad), ones) == math.inf
    with pytest.raises(FeedError, match=r"expected an array of shape \(3,\), got \(4,\)"):
        relative_l2(ones, np.ones(4))


def test_the_spread_is_over_the_rows_of_all_samples() -> None:
    random = np.random.default_rng(0)
    rows = 300 + random.standard_normal((11, 4, 3))
    spread = spread_of([rows[:8], rows[8:10], rows[10:]])
    around = rows - rows.mean(0)
    assert spread.rms == pytest.approx(math.sqrt((around**2).sum() / 11))
    assert spread.magnitude == pytest.approx(math.sqrt((rows**2).sum() / 11))


def test_a_constant_part_costs_the_spread_no_digits() -> None:
    rows = np.array([[1e9 - 1], [1e9 + 1]])
    assert spread_of([rows]).rms == 1.0
    assert spread_of([np.full((5, 3), 0.1)]).rms == 0.0


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.ones((1, 3))],
        [np.zeros((0, 3))],
        [np.array([[1.0], [math.nan]])],
        [np.ones((1, 3)), np.ones((1, 4))],
    ],
)
def test_without_two_rows_of_numbers_there_is_no_spread(arrays: list[np.ndarray]) -> None:
    assert spread_of(arrays) == Spread()


def test_rows_of_other_shapes_have_means_of_their_own() -> None:
    short, long = np.array([[1.0], [3.0]]), np.array([[10.0, 0.0], [10.0, 2.0]])
    assert spread_of([short, long, np.ones((1, 7))]).rms == 1.0


def test_a_constant_is_as_far_off_as_the_rows_vary() -> None:
    reference = 300 + np.random.default_rng(0).standard_normal((64, 1))
    constant = np.full_like(reference, reference.mean())
    spread = spread_of([reference]).rms
    report = _compare(reference, constant, 2.0**-8, spread, 0.5)
    assert report.rel_l2 < 2.0**-8
    assert report.centred == pytest.approx(1.0)
    assert not report.passed
    assert report.decisive == (report.centred, 0.5)
    assert report.excess == pytest.approx(2.0)
    assert _compare(reference, constant, 2.0**-8, spread).passed
    near = _compare(reference, reference + 0.1 * spread, 2.0**-8, spread, 0.5)
    assert near.centred == pytest.approx(0.1)
    assert near.passed


def test_margins_are_those_of_the_documents() -> None:
    """A larger one would weaken every bundle's tolerances."""
    found = {name: (m.margin, m.floor, m.resolution) for name, m in tolerances.MARGINS.items()}
    single, integers = 2.0**-21, 2.0**-8
    assert found == {
        "fp32": (8.0, single, single),
        "fp16": (3.0, 2.0**-12, 2.0**-12),
        "bf16": (3.0, 2.0**-9, 2.0**-9),
        "int8": (2.0, integers, single),
        "int8-dynamic": (2.0, integers, single),
        "fp8": (2.0, 2.0**-6, single),
        "int4": (2.0, 2.0**-6, single),
    }


def test_an_error_of_exactly_the_tolerance_passes() -> None:
    ones = np.ones((1, 4), np.float32)
    reference, got = ones * 2, ones * 3  # relative L2 0.5, exact in FP32
    for bound, passed in ((0.5, True), (0.499, False)):
        assert _compare(reference, got, bound).passed == passed


def test_a_centred_error_of_exactly_the_tolerance_passes() -> None:
    """Rows of |row - mean row| 2, off by 1: 0.5, exact in FP64."""
    reference = np.array([[0.0], [4.0]])
    spread = spread_of([reference])
    assert spread == Spread(2.0, math.sqrt(8.0))
    for bound, passed in ((0.5, True), (0.499, False)):
        assert _compare(reference, reference + 1.0, 10.0, spread.rms, bound).passed == passed


def test_other_shapes_are_reported_as_nothing_alike() -> None:
    report = _compare(np.ones(3), np.ones(4))
    assert report == ParityReport("c", "t", "chained", math.inf, math.inf, 0.0, (), 0, 1e-3, False)


def test_zeros_are_like_zeros_alone() -> None:
    assert _compare(np.zeros((2, 3)), np.zeros((2, 3))).cosine == 1.0
    assert _compare(np.zeros((2, 3)), np.ones((2, 3))).cosine == 0.0


def test_distances_need_a_spread_to_be_centred() -> None:
    reference = np.array([[0.0], [4.0]])
    assert distances(reference, reference + 1.0) == (relative_l2(reference, reference + 1.0), None)
    assert distances(reference, reference + 1.0, 2.0)[1] == 0.5


def test_a_scalar_is_one_row() -> None:
    assert [rows_of(np.array(2.0)), rows_of(np.ones(3))] == [1, 3]


def test_the_spread_is_that_around_the_mean() -> None:
    rows = np.random.default_rng(0).standard_normal((9, 4)) + np.array([0, 5, 50, 500])
    expected = np.sqrt(((rows - rows.mean(0)) ** 2).sum(1).mean())
    assert spread_of([rows[:4], rows[4:]]).rms == pytest.approx(expected)


def test_the_smallest_centred_tolerance_is_rounding_of_the_constant_part() -> None:
    margins = tolerances.Margins(1.0, 0.125, 0.25)
    assert [margins.centred_floor(Spread(*each)) for each in ((2.0, 8.0), (8.0, 8.0), (8.0, 1.0), (0.0, 8.0))] == [
        1.0,
        0.25,
        0.125,
        0.0,
    ]


def test_one_component_is_compared_with_the_golden_samples(bundle: Path) -> None:
    with open_session(bundle, threads=1) as session:
        for entry in session.manifest.components:
            run = partial(session.run_component, entry.name)
            assert component_failure(session.bundle, entry, run) == ""
            broken = component_failure(
                session.bundle, entry, lambda inputs, run=run: {n: 2 * array + 1 for n, array in run(inputs).items()}
            )
            names = "|".join(spec.name for spec in entry.outputs)
            assert re.fullmatch(rf"({names}): error \S+, tolerance 1e-05", broken)
