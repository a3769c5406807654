"""Scores to probabilities and names."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.processing.labels import softmax, top_k

LOGITS = np.array([[0.0, 2.0, 1.0], [3.0, 3.0, -1.0]], np.float32)


def test_softmax_of_large_logits_is_finite_and_sums_to_one() -> None:
    probabilities = softmax(np.array([[1e4, 1e4 - 1.0], [-3e38, 3e38]], np.float32))
    np.testing.assert_allclose(probabilities, [[1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))], [0, 1]], rtol=1e-6)


def test_half_precision_logits_do_not_overflow() -> None:
    np.testing.assert_allclose(softmax(np.array([60000.0, -60000.0], np.float16)), [1, 0])


def test_the_likeliest_come_first_and_of_equals_the_lowest_number() -> None:
    first, second = top_k(LOGITS, ("ant", "bee", "cat"), 2)
    assert [(p.label, p.index) for p in first] == [("bee", 1), ("cat", 2)]
    assert [p.label for p in second] == ["ant", "bee"]
    assert first[0].probability == pytest.approx(np.exp(2) / (1 + np.exp(1) + np.exp(2)))


def test_classes_without_labels_are_numbered() -> None:
    assert top_k(LOGITS, k=1)[0][0].label == "1"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: top_k(LOGITS[0], k=1), FeedError, r"expected rank 2 .* got \[3\]"),
        (lambda: top_k(LOGITS, ("ant",), 1), UsageError, "expected 3, one for each class, got 1"),
        (lambda: top_k(LOGITS, k=4), UsageError, "expected 1 to 3, got 4"),
        (lambda: top_k(LOGITS * np.float32(np.nan), k=1), FeedError, "got NaN or infinity"),
    ],
)
def test_misfits_are_refused(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
