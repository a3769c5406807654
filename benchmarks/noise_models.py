"""Simulated times of calls on machines of several kinds, for the coverage of intervals.

Each model gives logarithms of times, shape `(repetitions, calls)`, in the order of the calls.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
Model = Callable[[np.random.Generator, tuple[int, int]], Times]


def lognormal(random: np.random.Generator, shape: tuple[int, int]) -> Times:
    return random.standard_normal(shape) * 0.05


def heavy_tailed(random: np.random.Generator, shape: tuple[int, int]) -> Times:
    """Student's t with 1.5 degrees of freedom, and one call in ten interrupted."""
    noise = 0.03 * random.standard_t(1.5, shape).clip(-20, 20)
    return noise + (random.random(shape) < 0.1) * random.exponential(0.5, shape)


def drifting(random: np.random.Generator, shape: tuple[int, int]) -> Times:
    """A machine that gets 65% slower meanwhile, and swings."""
    time = np.arange(shape[1]) / shape[1]
    return lognormal(random, shape) + 0.5 * time + 0.3 * np.sin(6 * time + 6 * random.random((shape[0], 1)))


def loaded(random: np.random.Generator, shape: tuple[int, int]) -> Times:
    """Autocorrelated load: an autoregressive process, and another program that comes and goes."""
    out, load, busy = np.empty(shape), random.standard_normal(shape[0]), random.random(shape[0]) < 0.5
    for i in range(shape[1]):
        load = 0.8 * load + 0.6 * random.standard_normal(shape[0])
        busy ^= random.random(shape[0]) < 0.15
        out[:, i] = 0.05 * load + 0.3 * busy
    return out


MODELS: dict[str, Model] = {
    "log-normal": lognormal,
    "heavy tails": heavy_tailed,
    "drift": drifting,
    "autocorrelated load": loaded,
}


def log_ratios(model: Model, rounds: int, repetitions: int, slowdown: float = 0.0) -> Times:
    """Logarithms of the ratios of a call to itself, or to a faster one, in rounds of random order."""
    random = np.random.default_rng(rounds)
    times = model(random, (repetitions, 2 * rounds)).reshape(repetitions, rounds, 2)
    first = random.random((repetitions, rounds)) < 0.5
    return np.where(first, times[..., 0] - times[..., 1], times[..., 1] - times[..., 0]) + np.log1p(slowdown)
