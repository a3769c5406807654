"""Metrics against values worked out by hand, and their edges."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_runtime.errors import CheckError, DatasetError
from perceiver_runtime.evaluation.metrics import evaluate_classification, evaluate_regression

LABELS = ("cat", "dog", "owl")


def logits_for(predicted: list[int], classes: int = 3) -> np.ndarray:
    """Logits whose largest is at the wanted class, and which are not one-hot."""
    logits = np.random.default_rng(0).uniform(-1, 0, (len(predicted), classes)).astype(np.float32)
    logits[np.arange(len(predicted)), predicted] = 0.5
    return logits


def test_scores_worked_out_by_hand():
    targets = np.array([0, 0, 0, 1, 1, 2])
    found = evaluate_classification(logits_for([0, 0, 1, 1, 2, 2]), targets, LABELS)
    cat, dog, owl = found.per_class
    assert found.samples == 6
    assert found.accuracy == pytest.approx(4 / 6)
    assert (cat.precision, cat.recall, cat.f1, cat.support) == (1.0, pytest.approx(2 / 3), pytest.approx(0.8), 3)
    assert (dog.precision, dog.recall, dog.f1, dog.support) == (0.5, 0.5, 0.5, 2)
    assert (owl.precision, owl.recall, owl.f1, owl.support) == (0.5, 1.0, pytest.approx(2 / 3), 1)
    assert found.precision == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found.recall == pytest.approx((2 / 3 + 0.5 + 1) / 3)
    assert found.f1 == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert [c.label for c in found.per_class] == list(LABELS)


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_scikit_learns(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    targets, labels = random.integers(0, 5, 40), tuple("abcdefg")  # f and g are never targets
    logits = random.normal(size=(40, 7)).astype(np.float32)
    logits[:, 6] -= 100  # and g is never predicted
    found = evaluate_classification(logits, targets, labels)
    expected = sklearn.precision_recall_fscore_support(
        targets, logits.argmax(1), labels=np.arange(7), zero_division=0.0
    )
    scores = [(c.precision, c.recall, c.f1, c.support) for c in found.per_class]
    assert np.array_equal(np.array(scores).T, np.stack(expected))
    macro = sklearn.precision_recall_fscore_support(targets, logits.argmax(1), average="macro", zero_division=0.0)
    assert (found.precision, found.recall, found.f1) == pytest.approx(macro[:3])


def test_all_right():
    found = evaluate_classification(logits_for([2, 1, 0]), np.array([2, 1, 0]), LABELS)
    assert (found.accuracy, found.precision, found.recall, found.f1) == (1, 1, 1, 1)


def test_a_class_neither_among_targets_nor_predictions_leaves_the_means_alone():
    found = evaluate_classification(logits_for([0, 1, 0]), np.array([0, 1, 1]), LABELS)
    owl = found.per_class[2]
    assert (owl.precision, owl.recall, owl.f1, owl.support) == (0, 0, 0, 0)
    assert found.recall == pytest.approx((1 + 0.5) / 2)


def test_a_class_predicted_but_never_a_target_counts_against_the_means():
    found = evaluate_classification(logits_for([0, 1, 2]), np.array([0, 1, 1]), LABELS)
    assert found.per_class[2].precision == 0
    assert found.precision == pytest.approx((1 + 1 + 0) / 3)


def test_a_class_never_predicted_has_no_precision():
    found = evaluate_classification(logits_for([0, 0]), np.array([0, 1]), LABELS)
    assert (found.per_class[1].precision, found.per_class[1].recall) == (0, 0)
    assert found.precision == pytest.approx((0.5 + 0) / 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_are_refused(value):
    logits = logits_for([0, 1])
    logits[1, 2] = value
    with pytest.raises(CheckError, match="1 of 6"):
        evaluate_classification(logits, np.array([0, 1]), LABELS)


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (logits_for([0, 1]), np.array([0])),
        (logits_for([0, 1], classes=4), np.array([0, 1])),
        (logits_for([0])[0], np.array([0])),
        (np.zeros((0, 3), np.float32), np.array([], np.int64)),
        (logits_for([0, 1]), np.array([0, 3])),
        (logits_for([0, 1]), np.array([0, -1])),
        (logits_for([0, 1]), np.array([0.0, 1.0])),
        (logits_for([0, 1]), np.array([[0], [1]])),
    ],
)
def test_arrays_that_do_not_fit_are_refused(logits, targets):
    with pytest.raises(DatasetError, match=r"expected .* got"):
        evaluate_classification(logits, targets, LABELS)


def test_absolute_and_relative_errors_worked_out_by_hand():
    found = evaluate_regression(np.array([1.5, -3.0, 9.0]), np.array([1.0, -4.0, 10.0]))
    assert found.mae == pytest.approx((0.5 + 1 + 1) / 3)
    assert found.mape == pytest.approx((0.5 + 0.25 + 0.1) / 3)
    assert (found.samples, found.zero_targets) == (3, 0)


def test_zero_targets_count_for_the_absolute_error_alone():
    found = evaluate_regression(np.array([2.0, 3.0]), np.array([0.0, 4.0]))
    assert found.mae == pytest.approx(1.5)
    assert found.mape == pytest.approx(0.25)
    assert found.zero_targets == 1


def test_targets_all_zero_have_no_relative_error():
    found = evaluate_regression(np.array([1.0, 3.0]), np.zeros(2))
    assert (found.mae, found.mape, found.zero_targets) == (2.0, None, 2)


def test_half_precision_predictions_are_summed_in_double():
    found = evaluate_regression(np.full(4096, 1000, np.float16), np.zeros(4096, np.float16))
    assert found.mae == 1000


def test_regression_of_several_values_each():
    assert evaluate_regression(np.ones((5, 2)), np.full((5, 2), 2.0)).samples == 10


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2, 1), (2,)), ((0,), (0,))])
def test_regression_arrays_that_do_not_fit(shapes):
    with pytest.raises(DatasetError, match=r"expected .* got"):
        evaluate_regression(np.ones(shapes[0]), np.ones(shapes[1]))


def test_regression_outputs_that_are_not_finite():
    with pytest.raises(CheckError):
        evaluate_regression(np.array([np.nan]), np.array([1.0]))
