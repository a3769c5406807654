"""Roofline points: what each component achieved of what this machine, or a board, allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from perceiver_exporters.roofline.ceilings import Ceilings, measure_ceilings
from perceiver_exporters.roofline.work import Work, work_of
from perceiver_runtime.errors import UsageError
from perceiver_runtime.execution.session import Session

Bound = Literal["compute", "memory", "overhead"]
MILLISECONDS = 1e3


@dataclass(frozen=True)
class RooflinePoint:
    """One component against the ceilings.

    Attributes:
        component: Name of the component.
        precision: Precision in the manifest.
        seconds: Measured, all calls of one run.
        ideal: Seconds at the ceilings: the longer of the time of the FLOPs, each at the rate of its type, and the time
            of the bytes in the fused model (see `roofline.work`).
        flops: FLOPs of one run.
        bytes_moved: Bytes of one run, in the fused model.
        intensity: FLOPs per byte.
        achieved: FLOP/s.
        achieved_bytes: Bytes/s.
        ceiling: FLOP/s at this intensity.
        share: `ideal` over `seconds`. More than 1 where the data of successive runs stay in a cache, which the memory
            ceiling does not count on.
        bound: What takes longest at the ceilings: FLOPs, bytes, or starting the calls and their nodes.
    """

    component: str
    precision: str
    seconds: float
    ideal: float
    flops: int
    bytes_moved: int
    intensity: float
    achieved: float
    achieved_bytes: float
    ceiling: float
    share: float
    bound: Bound


@dataclass(frozen=True)
class Roofline:
    """Points of a session's components, with the ceilings and the work that they were compared with."""

    points: tuple[RooflinePoint, ...]
    ceilings: Ceilings
    work: tuple[Work, ...]


def session_roofline(
    session: Session, latencies: Mapping[str, float], sizes: Mapping[str, int] | None = None
) -> Roofline:
    """Compare the latencies of an open session with the ceilings of this machine, measured for its backend and threads.

    Args:
        session: The session that was measured.
        latencies: Milliseconds by component, as for `roofline`.
        sizes: Sizes that were measured, as for `work_of`.

    Raises:
        UnavailableError: The session computes on a GPU, whose ceilings are not measured.
        UsageError: What `roofline` and `work_of` refuse.
    """
    work = work_of(session.bundle, sizes)
    types = {kind for each in work for kind in each.flops_by_type}
    ceilings = measure_ceilings(session.backend, session.threads, types)
    return Roofline(roofline(work, latencies, ceilings), ceilings, work)


def roofline(work: Iterable[Work], latencies: Mapping[str, float], ceilings: Ceilings) -> tuple[RooflinePoint, ...]:
    """Compare measured latencies with the ceilings.

    Args:
        work: Work of the components at the sizes that were measured (`work_of`).
        latencies: Milliseconds of all calls of each component in one run, as `LatencyReport.components` has them
            (the median of each).
        ceilings: Of the machine that was measured, and of the backend and threads that ran the bundle.

    Returns:
        A point for each component.

    Raises:
        UsageError: A component has no latency, or the ceilings lack the rate of a type that it computes in.
    """
    return tuple(_point(each, _latency(each, latencies), ceilings) for each in work)


def ideal_seconds(work: Work, ceilings: Ceilings) -> tuple[float, float]:
    """Seconds of the FLOPs and of the bytes at the ceilings. Raises UsageError for a type without a rate."""
    if missing := sorted(kind for kind in work.flops_by_type if kind not in ceilings.flops_per_s):
        raise UsageError(
            f"component {work.component}: expected ceilings for {', '.join(missing)}, got "
            f"{', '.join(ceilings.flops_per_s)} ({ceilings.source}); measure them for this bundle"
        )
    compute = sum(flops / ceilings.flops_per_s[kind] for kind, flops in work.flops_by_type.items())
    return compute, work.bytes_moved(ceilings.cache) / ceilings.bytes_per_s


def _latency(work: Work, latencies: Mapping[str, float]) -> float:
    seconds = latencies.get(work.component, 0.0) / MILLISECONDS
    if not seconds > 0:
        raise UsageError(
            f"latencies: expected milliseconds of {work.component}, got {latencies.get(work.component)}; measure all "
            "components of the bundle"
        )
    return seconds


def _point(work: Work, seconds: float, ceilings: Ceilings) -> RooflinePoint:
    compute, memory = ideal_seconds(work, ceilings)
    ideal, moved = max(compute, memory), work.bytes_moved(ceilings.cache)
    starting = work.calls * (ceilings.call_s + work.nodes * ceilings.node_s)
    bound: Bound = "compute" if compute >= memory else "memory"
    return RooflinePoint(
        component=work.component,
        precision=work.precision,
        seconds=seconds,
        ideal=ideal,
        flops=work.flops,
        bytes_moved=moved,
        intensity=work.flops / moved,
        achieved=work.flops / seconds,
        achieved_bytes=moved / seconds,
        ceiling=work.flops / ideal,
        share=ideal / seconds,
        bound="overhead" if starting > ideal else bound,
    )
