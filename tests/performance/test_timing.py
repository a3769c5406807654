"""Calls take turns in random order, and the interval of a ratio contains the truth as often as it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from perceiver_runtime import UsageError
from perceiver_runtime.benchmark.statistics import Distribution, median_interval, ratio
from perceiver_runtime.benchmark.timing import interleave

REPETITIONS = 1000


def _models() -> Any:
    path = Path(__file__).parents[2] / "benchmarks" / "noise_models.py"
    spec = importlib.util.spec_from_file_location("noise_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


noise = _models()


def log_ratios(rounds: int, model: str = "log-normal", slowdown: float = 0.0) -> npt.NDArray[np.float64]:
    """Of a call to itself, or to a faster one."""
    found: npt.NDArray[np.float64] = noise.log_ratios(noise.MODELS[model], rounds, REPETITIONS, slowdown)
    return found


def test_calls_take_turns_in_every_order() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = interleave(calls, rounds=40, warmup=1, seed=0)
    rounds = ["".join(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert rounds[0] == "abc"
    assert all(sorted(each) == list("abc") for each in rounds)
    assert len(set(rounds)) == 6
    assert {name: len(each) for name, each in times.items()} == {"a": 40, "b": 40, "c": 40}
    assert min(min(each) for each in times.values()) > 0


def test_ratio_ignores_drift_that_both_share() -> None:
    drift = np.linspace(1, 3, 40)
    got = ratio(20 * drift, 10 * drift)  # type: ignore[arg-type]
    assert (got.median, got.low, got.high) == pytest.approx((2, 2, 2))


def test_exchanged_calls_give_reciprocals() -> None:
    a, b = np.random.default_rng(0).lognormal(0, 0.3, (2, 25))
    one, other = ratio(a, b), ratio(b, a)
    assert (1 / one.median, 1 / one.high, 1 / one.low) == pytest.approx((other.median, other.low, other.high))
    assert str(one) == f"{one.median:.2f} ({one.low:.2f} to {one.high:.2f})"


@pytest.mark.parametrize(("a", "b"), [((1.0, 2.0), (1.0,)), ((1.0,), (1.0,)), ((), ())])
def test_too_few_or_unequal_rounds(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="expected equally many, at least 2"):
        ratio(a, b)


def test_times_are_above_zero() -> None:
    with pytest.raises(UsageError, match="expected times above 0, got 0"):
        ratio((1.0, 2.0), (1.0, 0.0))


@pytest.mark.parametrize("rounds", [10, 30, 50])
@pytest.mark.parametrize("model", noise.MODELS)
def test_interval_contains_1_in_95_of_100_comparisons_of_a_call_with_itself(model: str, rounds: int) -> None:
    low, high = median_interval(log_ratios(rounds, model))
    assert 930 <= np.count_nonzero((low <= 0) & (high >= 0)) <= 970


@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_few_rounds_are_covered_too(rounds: int) -> None:
    low, high = median_interval(log_ratios(rounds))
    assert np.count_nonzero((low <= 0) & (high >= 0)) >= 930


def test_a_slowdown_of_a_tenth_is_found() -> None:
    low, _ = median_interval(log_ratios(30, slowdown=0.1))
    assert np.count_nonzero(low > 0) >= 0.9 * REPETITIONS


def test_the_interval_is_that_of_a_ratio_and_narrows() -> None:
    ratios = np.exp(log_ratios(50)[0])
    got = ratio(ratios, np.ones(50))  # type: ignore[arg-type]
    assert np.log([got.low, got.high]) == pytest.approx(median_interval(np.log(ratios)))
    series = np.random.default_rng(0).standard_normal(4000)
    widths = [-np.subtract(*median_interval(series[:n])) for n in (50, 999, 1001, 4000)]
    assert widths[0] > widths[1] > widths[3]
    assert widths[1] == pytest.approx(widths[2], rel=0.1)


def test_distribution_of_few_samples() -> None:
    one, two = Distribution.of((3.0,)), Distribution.of((1.0, 3.0))
    assert (one.p50, one.max, one.mean, one.interval) == (3.0, 3.0, 3.0, None)
    assert two.interval is not None
    assert two.interval[0] < 1
    assert two.interval[1] > 3
