"""Forecasts of latency on boards that are not at hand. A forecast is a type of its own, never a measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.preflight.memory import USABLE, estimate
from perceiver_exporters.preflight.report import EngineMemoryEstimate
from perceiver_exporters.preflight.subject import read_subject
from perceiver_exporters.roofline.work import Work, work_of
from perceiver_exporters.targets.target import TARGETS, Board, EngineTarget, Target
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import UsageError
from perceiver_runtime.suggest import did_you_mean

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
"""Bytes of a stored weight."""
WIDE = frozenset(("fp32", "fp16", "bf16"))
"""Types that a graph can have throughout; in others it has products with a weight alone."""


@dataclass(frozen=True)
class Allowance:
    """What a board is assumed to reach of its peaks. Nobody has measured these on a board.

    Attributes:
        compute: Share of the peak rate of products.
        memory: Share of the memory bandwidth.
        launch_s: Seconds to start a kernel.
        fused: Nodes of the graph that one kernel computes.
        in_memory: Whether values inside a graph reach memory.
    """

    compute: float
    memory: float
    launch_s: float
    fused: int
    in_memory: bool


OPTIMISTIC = Allowance(compute=0.8, memory=0.9, launch_s=1e-6, fused=4, in_memory=False)
PESSIMISTIC = Allowance(compute=0.3, memory=0.5, launch_s=5e-6, fused=1, in_memory=True)


@dataclass(frozen=True)
class ComponentForecast:
    """Seconds of all calls of one component in a run, at best and at worst, and what takes longest at best."""

    component: str
    optimistic_s: float
    pessimistic_s: float
    bound: str


@dataclass(frozen=True)
class Forecast:
    """A forecast for one board: nothing in it was measured there.

    Attributes:
        board: Name of the board.
        target: Target that the board belongs to.
        precision: Precision of the products with a weight.
        components: Range of each component.
        optimistic_s: Seconds of a run, at best.
        pessimistic_s: Seconds of a run, at worst.
        memory: Bytes that a session is expected to need at the profile's largest sizes.
        fits: Whether the board has that memory.
        assumptions: What the range rests on, as sentences.
        source: Where the board's peaks come from.
        kind: Tells a forecast from a measurement in JSON.
    """

    board: str
    target: str
    precision: str
    components: tuple[ComponentForecast, ...]
    optimistic_s: float
    pessimistic_s: float
    memory: int
    fits: bool
    assumptions: tuple[str, ...]
    source: str
    kind: Literal["forecast"] = "forecast"


def forecast(
    bundle: Bundle, board: str, precision: str | None = None, sizes: Mapping[str, int] | None = None
) -> Forecast:
    """Forecast the latency of a bundle on a board of the target table.

    Args:
        bundle: A loaded bundle.
        board: Name of the board, such as `AGX Orin 64GB`.
        precision: Precision to compute in; None takes the bundle's. Another one needs a bundle in FP32.
        sizes: Sizes of symbolic dimensions, as for `work_of`.

    Returns:
        A range for each component and for a run.

    Raises:
        UsageError: The board is unknown, the precision is not the bundle's nor can be derived from it, the target does
            not offer it, or the target table has no rate for it.
        BundleError: A graph is damaged.
    """
    target, found = _board(board)
    return _Subject(bundle, sizes).forecast(target, found, precision or bundle.manifest.precision)


def forecasts(bundle: Bundle, sizes: Mapping[str, int] | None = None) -> tuple[Forecast, ...]:
    """Forecasts for all boards of the target table.

    In the bundle's precision, and for a bundle in FP32 in all that the board's target offers and that a rate is known
    for. Boards that the bundle's own precision can't be forecast for are left out.
    """
    subject = _Subject(bundle, sizes)
    stored = bundle.manifest.precision
    precisions = tuple(BYTES) if stored == "fp32" else (stored,)
    asked = ((target, board, precision) for target, board in boards() for precision in precisions)
    return tuple(subject.forecast(*each) for each in asked if not subject.refusal(*each))


def boards() -> Iterator[tuple[Target, Board]]:
    """Boards of the target table, with their targets."""
    return ((target, board) for target in TARGETS.values() for board in target.boards)


class _Subject:
    """A bundle, counted once for all boards."""

    def __init__(self, bundle: Bundle, sizes: Mapping[str, int] | None) -> None:
        self._bundle, self._sizes = bundle, dict(sizes or {})
        self._stored = bundle.manifest.precision
        self._work = work_of(bundle, sizes)
        self._memory = _memory(bundle)

    def refusal(self, target: Target, board: Board, precision: str) -> str:
        """Why there is no forecast for a board, or an empty text."""
        if precision not in target.precisions:
            return f"target {target.name} does not compute in {precision}; it offers {', '.join(target.precisions)}"
        if precision != self._stored and (self._stored != "fp32" or precision not in BYTES):
            return f"the bundle is in {self._stored}: forecast that, or export it in fp32 or {precision}"
        needed = {kind for work in self._work for kind in _in_precision(work, self._stored, precision).flops_by_type}
        if missing := sorted(needed - set(board.peak)):
            return f"the target table has no rate of {', '.join(missing)} for it, but of {', '.join(board.peak)}"
        return ""

    def forecast(self, target: Target, board: Board, precision: str) -> Forecast:
        """The forecast for one board. Raises UsageError."""
        if reason := self.refusal(target, board, precision):
            raise UsageError(f"forecast for {board.name} in {precision}: {reason}")
        components = tuple(_component(_in_precision(work, self._stored, precision), board) for work in self._work)
        saved = 1 - BYTES[precision] / BYTES[self._stored] if precision != self._stored else 0.0
        memory = self._memory.run_peak - round(self._memory.weights * saved)
        return Forecast(
            board=board.name,
            target=target.name,
            precision=precision,
            components=components,
            optimistic_s=sum(each.optimistic_s for each in components),
            pessimistic_s=sum(each.pessimistic_s for each in components),
            memory=memory,
            fits=memory <= USABLE * board.memory,
            assumptions=(*ASSUMPTIONS, *self._own(precision)),
            source=board.source,
        )

    def _own(self, precision: str) -> Iterator[str]:
        manifest = self._bundle.manifest
        if precision == self._stored:
            yield f"the graphs as they are stored, in {precision} for {manifest.target}"
        elif precision in WIDE:
            yield f"from graphs in {self._stored}: everything in {precision}"
        else:
            yield f"from graphs in {self._stored}: products with a weight in {precision}, the rest in {self._stored}"
        given = ", ".join(f"{symbol} {size}" for symbol, size in self._sizes.items())
        yield f"{given}; else typical sizes of the profile" if given else "typical sizes of the profile"


ASSUMPTIONS = (
    f"products reach {PESSIMISTIC.compute:.0%} to {OPTIMISTIC.compute:.0%} of the board's peak, and accesses to memory "
    f"{PESSIMISTIC.memory:.0%} to {OPTIMISTIC.memory:.0%} of its bandwidth: assumed, not measured",
    f"a kernel takes {OPTIMISTIC.launch_s * 1e6:g} to {PESSIMISTIC.launch_s * 1e6:g} µs to start, and computes "
    f"{PESSIMISTIC.fused} to {OPTIMISTIC.fused} nodes of a graph: assumed, not measured",
    "at best no value inside a graph reaches memory, at worst all do; weights are read at each call",
    "highest clocks, no throttling, no other load; without transfers from and to the host",
    f"a session's memory as preflight checks estimate it, {USABLE:.0%} of the board's are free: not measured on boards",
)


def _board(name: str) -> tuple[Target, Board]:
    found = {board.name: (target, board) for target, board in boards()}
    if name not in found:
        raise UsageError(f"board {name!r}: expected one of {', '.join(found)}{did_you_mean(name, found)}")
    return found[name]


def _in_precision(work: Work, stored: str, precision: str) -> Work:
    """The work that the component would have in another precision, derived from FP32 graphs."""
    if precision == stored:
        return work
    ratio = BYTES[precision] / BYTES[stored]
    changed = dataclasses.replace(work, precision=precision, weights=round(work.weights * ratio))
    if precision in WIDE:
        return dataclasses.replace(
            changed, flops_by_type={precision: work.flops}, intermediates=round(work.intermediates * ratio)
        )
    rest = work.flops - work.weighted_flops
    by_type = {precision: work.weighted_flops, stored: rest}
    return dataclasses.replace(changed, flops_by_type={kind: flops for kind, flops in by_type.items() if flops})


def _component(work: Work, board: Board) -> ComponentForecast:
    times = _times(work, board, OPTIMISTIC)
    return ComponentForecast(
        component=work.component,
        optimistic_s=_total(times),
        pessimistic_s=_total(_times(work, board, PESSIMISTIC)),
        bound=max(times, key=times.__getitem__),
    )


def _times(work: Work, board: Board, allowance: Allowance) -> dict[str, float]:
    """Seconds of the FLOPs, of the bytes and of starting kernels."""
    moved = work.bytes_unfused() if allowance.in_memory else work.bytes_moved()
    return {
        "compute": sum(n / board.peak[kind] for kind, n in work.flops_by_type.items()) / allowance.compute,
        "memory": moved / board.bandwidth / allowance.memory,
        "overhead": work.calls * -(-work.nodes // allowance.fused) * allowance.launch_s,
    }


def _total(times: Mapping[str, float]) -> float:
    return max(times["compute"], times["memory"]) + times["overhead"]


def _memory(bundle: Bundle) -> EngineMemoryEstimate:
    """The preflight estimate, which is the same for all targets."""
    target, engines = next((t, t.engines) for t in TARGETS.values() if t.engines is not None)
    assert isinstance(engines, EngineTarget)  # for mypy
    with quiet():
        return estimate(read_subject(bundle.path, target, engines))
