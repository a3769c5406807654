"""The comparison finds what differs, in FP64, and never passes what it can't compare."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from perceiver_runtime import compare as compare_module
from perceiver_runtime.compare import ParityReport, compare


def _compare(reference: Any, got: Any, tolerance: float = 1e-3) -> ParityReport:
    return compare(
        np.asarray(reference), np.asarray(got), component="c", tensor="t", mode="chained", tolerance=tolerance
    )


def test_equal_arrays() -> None:
    report = _compare(np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3), 0.0)
    assert report == ParityReport("c", "t", "chained", 0.0, 0.0, pytest.approx(1.0), (0, 0), 0, 0.0, True)


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
