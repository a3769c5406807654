"""History of benchmarks: results appended to a file, and later ones compared with them, noise included.

A machine's speed drifts between runs, for all programs alike. Where both runs timed the same peer, a change is
therefore that of the ratio to the peer. What is left differs from run to run by more than within a run: by the spread
of earlier runs if there are enough, else by `DRIFT`. A change counts if its whole interval is beyond that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_deploy.api.bench import BenchmarkReport
from perceiver_runtime.benchmark.statistics import Ratio, median_interval
from perceiver_runtime.errors import BundleError, FeedError
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.outputs import exclusive, replacing
from perceiver_runtime.progress import report as say

DRIFT = 0.05
"""Change between two runs that is not counted where less than `MIN_RUNS` earlier ones tell how much they differ."""
MIN_RUNS = 4
QUANTILE = 1.96
MIN_MS, MAX_MS = 1e-9, 1e12
"""Of a call; a ratio of others has no exponential."""


@dataclass(frozen=True)
class Change:
    """One result beside the latest comparable one.

    Attributes:
        bundle: Name of the bundle.
        batch: Rows per call.
        date: When the earlier result was measured.
        earlier_ms: Its median.
        now_ms: The median now.
        ratio: Time now / earlier with its 95% interval, relative to a peer that both timed.
        noise: Change between runs that is not counted.
        runs: Earlier comparable results.
        verdict: `slower`, `faster` or `same`; `first` without an earlier result is not listed.
    """

    bundle: str
    batch: int
    date: str
    earlier_ms: float
    now_ms: float
    ratio: Ratio
    noise: float
    runs: int
    verdict: str


def append(path: Path, reports: Iterable[BenchmarkReport]) -> None:
    """Add results to a history, which is written whole or stays as it is. Raises OSError (the disk)."""
    lines = (strict_json.dumps(schema.encode(report), indent=None) for report in reports)
    with exclusive(path), replacing(path) as partial:
        before = path.read_bytes() if path.exists() else b""
        partial.write_bytes(before + "".join(f"{line}\n" for line in lines).encode())


def read(path: Path) -> tuple[BenchmarkReport, ...]:
    """The results of a history; none if the file is not there. Raises FeedError for a line that is none."""
    if not path.exists():
        say(f"{path}: no earlier results")
        return ()
    return tuple(_parsed(line, f"{path}: line {i}") for i, line in enumerate(path.read_bytes().splitlines(), 1))


def changes(reports: Iterable[BenchmarkReport], history: Sequence[BenchmarkReport]) -> tuple[Change, ...]:
    """Each result beside the latest earlier one of the same kind; results without one are left out."""
    compared = ((now, [each for each in history if _kind(each) == _kind(now)]) for now in reports)
    return tuple(_change(now, earlier) for now, earlier in compared if earlier)


def _kind(report: BenchmarkReport) -> tuple[object, ...]:
    """What two results must have in common to be compared."""
    c = report.conditions
    return c.bundle, c.model, c.precision, c.machine, report.backend, report.batch, report.threads


def _parsed(line: bytes, where: str) -> BenchmarkReport:
    try:
        content: Any = strict_json.loads(line)
        found = schema.decode(BenchmarkReport, content, "result")
        if not all(_plausible(each.samples, found.session.samples) for each in (found.session, *found.peers.values())):
            raise ValueError(f"expected as many times of every peer, of {MIN_MS:g} to {MAX_MS:g} ms")
        return found
    except (ValueError, BundleError) as error:
        raise FeedError(f"{where}: expected a result of `bench --save`: {error}") from error


def _plausible(times: Sequence[float], rounds: Sequence[float]) -> bool:
    return len(times) == len(rounds) > 0 and MIN_MS <= min(times) <= max(times) <= MAX_MS


def _change(now: BenchmarkReport, earlier: Sequence[BenchmarkReport]) -> Change:
    last = earlier[-1]
    peer = next((name for name in now.peers if all(name in each.peers for each in earlier)), None)
    noise = _noise([_level(each, peer) for each in earlier])
    change = _ratio(_series(now, peer), _series(last, peer))
    verdict = "slower" if change.low > 1 + noise else "faster" if change.high < 1 / (1 + noise) else "same"
    return Change(
        bundle=now.conditions.bundle,
        batch=now.batch,
        date=last.conditions.date,
        earlier_ms=last.session.p50,
        now_ms=now.session.p50,
        ratio=change,
        noise=noise,
        runs=len(earlier),
        verdict=verdict,
    )


def _series(report: BenchmarkReport, peer: str | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Times of a run, round by round over those of a peer."""
    times = np.array(report.session.samples)
    return times / np.array(report.peers[peer].samples) if peer is not None else times


def _level(report: BenchmarkReport, peer: str | None) -> float:
    return float(np.median(_series(report, peer)))


def _noise(levels: Sequence[float]) -> float:
    """The change between two runs of the same that 95% of pairs stay below."""
    if len(levels) < MIN_RUNS:
        return DRIFT
    return math.expm1(QUANTILE * math.sqrt(2) * float(np.std(np.log(levels), ddof=1)))


def _ratio(now: Any, earlier: Any) -> Ratio:
    """Ratio of the medians of independent series; its 95% interval is theirs combined (Zou and Donner, 2008)."""
    logarithms = np.log(now), np.log(earlier)
    (low, high), (least, most) = map(median_interval, logarithms)
    one, other = map(np.median, logarithms)
    change = one - other
    down, up = math.hypot(one - low, most - other), math.hypot(high - one, other - least)
    return Ratio(math.exp(change), math.exp(change - down), math.exp(change + up))
