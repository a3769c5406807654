"""Does the interval of a ratio hold what it says on a machine that is not idle?

    python benchmarks/noise.py DIRECTORY [--rounds 50] [--repetitions 20]

Times a bundle beside itself, and beside itself slowed down by a tenth, again and again: each comparison in rounds of
random order, as `bench` does. Beside that the coverage in simulated comparisons, where the truth is known. Writes
benchmarks/results/noise.json.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from noise_models import MODELS, Times, log_ratios
from record import bundles, write

from perceiver_deploy.sources.source import resolve
from perceiver_runtime import Session, open_session
from perceiver_runtime.benchmark.latency import sized_feeds
from perceiver_runtime.benchmark.load import LoadMeter
from perceiver_runtime.benchmark.statistics import Ratio, median_interval, ratio
from perceiver_runtime.benchmark.timing import interleave, milliseconds
from perceiver_runtime.golden import load_golden
from perceiver_runtime.tensors import Array

NAME = "fashion-perceiver"
SLOWDOWN = 0.1
SIMULATED = 1000
ROUNDS = (10, 30, 50)
RESAMPLES = 500


def compared(session: Session, feeds: dict[str, Array], rounds: int, slowdown: float) -> Ratio:
    """A run with `slowdown` over one without."""
    run = partial(session.run, feeds)
    added = slowdown * float(np.median([milliseconds(run) for _ in range(30)])) / 1e3

    def slowed() -> None:
        run()
        end = perf_counter() + added
        while perf_counter() < end:
            pass

    times = interleave({"one": run, "other": slowed if slowdown else run}, rounds)
    return ratio(times["other"], times["one"])


def covered(logarithms: Times) -> int:
    """How many intervals contain a ratio of 1."""
    low, high = median_interval(logarithms)
    return int(np.count_nonzero((low <= 0) & (high >= 0)))


def bootstrap_covered(logarithms: Times) -> int:
    """The same with the percentile bootstrap of the median, for comparison."""
    random, count = np.random.default_rng(0), 0
    for each in logarithms:
        medians = np.median(each[random.integers(len(each), size=(RESAMPLES, len(each)))], axis=1)
        low, high = np.percentile(medians, (2.5, 97.5))
        count += bool(low <= 0 <= high)
    return count


def simulated() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, model in MODELS.items():
        for rounds in ROUNDS:
            same = log_ratios(model, rounds, SIMULATED)
            low, _ = median_interval(log_ratios(model, rounds, SIMULATED, SLOWDOWN))
            rows.append(
                {
                    "noise": name,
                    "rounds": rounds,
                    "contain_1": covered(same),
                    "bootstrap_contain_1": bootstrap_covered(same),
                    "slowdown_detected": int(np.count_nonzero(low > 0)),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    path = bundles(resolve(NAME), given.directory, ("fp32",))["fp32"]
    meter = LoadMeter()
    with open_session(path, "onnxruntime", given.threads) as session:
        feeds = sized_feeds(session, load_golden(session.bundle)[0].feeds, 1)
        same, slower = [], []
        for number in range(given.repetitions):
            same.append(compared(session, feeds, given.rounds, 0.0))
            slower.append(compared(session, feeds, given.rounds, SLOWDOWN))
            print(f"{number}: itself {same[-1]}, slowed down {slower[-1]}", flush=True)
    others = meter.read()
    write(
        "noise",
        {
            "model": NAME,
            "rounds": given.rounds,
            "threads": given.threads,
            "slowdown": SLOWDOWN,
            "other_cores": others.cores if others is not None else None,
            "repetitions": given.repetitions,
            "contain_1": sum(each.low <= 1 <= each.high for each in same),
            "slowdown_detected": sum(each.low > 1 for each in slower),
            "itself": same,
            "slowed_down": slower,
            "simulated": simulated(),
            "simulated_repetitions": SIMULATED,
        },
    )


if __name__ == "__main__":
    main()
