"""Candidates of an advice, what they exceed, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perceiver_runtime.errors import UsageError

THIS_MACHINE = "this machine"


@dataclass(frozen=True)
class Limits:
    """Bounds on a candidate; None: no bound. Raises UsageError for bounds that nothing can meet.

    Attributes:
        latency_ms: Largest median latency of one call.
        drop_points: Largest loss of accuracy in points.
        memory_bytes: Largest peak memory.
    """

    latency_ms: float | None = None
    drop_points: float | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("max_latency", self.latency_ms, 0.0),
            ("max_memory", self.memory_bytes, 0),
            ("max_drop", self.drop_points, -1.0),
        ):
            if value is not None and not value > least:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{name} ({option}): expected a number above {max(least, 0):g}, got {value}")


@dataclass(frozen=True)
class Candidate:
    """One way to run the model.

    Attributes:
        device: `THIS_MACHINE`, or the board of a forecast.
        precision: Precision of the bundle.
        backend: What runs it there.
        threads: CPU threads; None for other devices.
        latency_ms: Milliseconds per call: the median measured here, or the pessimistic end of a forecast.
        low_ms: Lower bound of its 95% interval; the optimistic end of a forecast.
        high_ms: Upper bound of its 95% interval; the pessimistic end of a forecast.
        forecast: Whether the latency is a forecast.
        points_lost: Accuracy lost against PyTorch in points, measured here; None: no labelled samples.
        relative_l2: Largest error of an output on the golden samples.
        memory_bytes: Peak memory, measured here or expected on a board; None: not measured.
        size_bytes: Size of the graphs and weights.
        verified: Whether the bundle is within its tolerances.
    """

    device: str
    precision: str
    backend: str
    threads: int | None
    latency_ms: float
    low_ms: float
    high_ms: float
    forecast: bool
    points_lost: float | None
    relative_l2: float
    memory_bytes: int | None
    size_bytes: int
    verified: bool

    def exceeds(self, limits: Limits) -> tuple[str, ...]:
        """Names of the limits that it does not keep; a value that is not known keeps none."""
        return tuple(
            name
            for name, value, limit in (
                ("latency", self.latency_ms, limits.latency_ms),
                ("accuracy", self.points_lost, limits.drop_points),
                ("memory", self.memory_bytes, limits.memory_bytes),
            )
            if limit is not None and (value is None or value > limit)
        ) + (() if self.verified else ("tolerance",))

    @property
    def costs(self) -> tuple[float, float, float]:
        """What is better when it is less: latency, loss of accuracy (or error where it is not known), memory."""
        lost = self.relative_l2 if self.points_lost is None else self.points_lost
        return self.latency_ms, lost, float(self.size_bytes if self.memory_bytes is None else self.memory_bytes)


def pareto(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Those that no other betters in one cost without being worse in another, fastest first."""
    known = sorted(candidates, key=lambda candidate: candidate.costs)
    return tuple(c for c in known if not any(_dominates(other, c) for other in known))


def choice(candidates: Sequence[Candidate], limits: Limits) -> Candidate | None:
    """The fastest within the limits; of equally fast ones (95% intervals overlap), the one that loses least.

    Forecasts of one device share their assumptions, so that their ranges overlap and are still in order.
    """
    within = [candidate for candidate in candidates if not candidate.exceeds(limits)]
    if not within:
        return None
    fastest = min(within, key=lambda candidate: candidate.latency_ms)
    equal = [c for c in within if c == fastest or (not c.forecast and c.low_ms <= fastest.high_ms)]
    return min(equal, key=lambda candidate: (*candidate.costs[1:], candidate.latency_ms))


def _dominates(a: Candidate, b: Candidate) -> bool:
    return a.costs != b.costs and all(x <= y for x, y in zip(a.costs, b.costs, strict=True))
