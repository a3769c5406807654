"""Calls take turns, and a ratio says how sure it is."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.api.timing import interleave, ratio
from perceiver_runtime import UsageError


def test_calls_take_turns_in_both_orders() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = interleave(calls, rounds=3, warmup=1)
    assert "".join(order) == "abc" + "abc" + "cba" + "abc"
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert min(min(each) for each in times.values()) > 0


def test_ratio_ignores_drift_that_both_share() -> None:
    drift = np.linspace(1, 3, 40)
    got = ratio(20 * drift, 10 * drift)  # type: ignore[arg-type]
    assert got.median == pytest.approx(2)
    assert got.low == pytest.approx(2)
    assert got.high == pytest.approx(2)


def test_interval_holds_the_truth_and_narrows_with_rounds() -> None:
    noise = np.random.default_rng(0).lognormal(0, 0.3, 400)
    few, many = ratio(3 * noise[:20], np.ones(20)), ratio(3 * noise, np.ones(400))  # type: ignore[arg-type]
    assert few.low < 3 < few.high
    assert many.low < 3 < many.high
    assert many.high - many.low < (few.high - few.low) / 2
    assert str(many) == f"{many.median:.2f} ({many.low:.2f} to {many.high:.2f})"


@pytest.mark.parametrize(("a", "b"), [((1.0, 2.0), (1.0,)), ((1.0,), (1.0,)), ((), ())])
def test_too_few_or_unequal_rounds(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="expected equally many, at least 2"):
        ratio(a, b)
