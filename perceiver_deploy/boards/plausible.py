"""Checks of a report's figures against each other: one that was edited contradicts itself, or its bundle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from perceiver_runtime.benchmark.report import Energy, LatencyReport
from perceiver_runtime.benchmark.statistics import Distribution
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import CheckError, ReportError
from perceiver_runtime.format import schema
from perceiver_runtime.measure.compare import ParityReport
from perceiver_runtime.measure.parity import PIPELINE
from perceiver_runtime.selftest.records import Engines, Parity, SelfTest, content_sha256, measured_sizes

ROUNDING = 1e-9
"""Relative difference that versions of NumPy may have in percentiles."""
LAST_BITS = 1e-6
MAY_BE_NEGATIVE = frozenset(("temperature", "cosine", "interval", "net_joules_per_inference", "layers"))
"""Fields whose numbers can be below 0; what TensorRT says of layers is its own."""
MAX_IDLE, IDLE_S = 2.0, 2.0
"""A recording may last so many times as long as its runs, and so many seconds longer."""
MAX_SHOWN = 3
SLOWER = 3.0
"""Components are timed in a series of their own, during which other load may slow the machine down so much."""


def check_plausible(made: SelfTest) -> None:
    """Check a report whose schema and hashes are right.

    Raises:
        ReportError: Figures contradict each other, or can't be.
        CheckError: Parity failed on the board: the latency of wrong answers is no result.
    """
    _refuse([problem for check in CHECKS for problem in check(made)])
    if not made.parity.passed:
        failed = [f"{r.component} {r.tensor}" for r in made.parity.reports if not r.passed]
        raise CheckError(
            f"report: parity failed on the board ({', '.join(failed)!s:.200}), so that its latency is no result: "
            "perceiver-export bisect finds the node"
        )


def check_bundle(made: SelfTest, bundle: Bundle) -> None:
    """Check that a report is of a bundle. Raises ReportError."""
    if (own := content_sha256(bundle.manifest)) != made.bundle.sha256:
        raise ReportError(
            f"report: of a bundle with digest {made.bundle.sha256:.12}, {bundle.path} has {own:.12}: "
            "name the bundle that was copied to the board"
        )
    manifest = bundle.manifest
    bounds = {(t.component, t.tensor): t for t in manifest.tolerances}
    compared = {(r.component, r.tensor): r for r in made.parity.reports}
    outputs = {(c.name, spec.name) for c in manifest.components for spec in c.outputs}
    required = outputs | {(PIPELINE, name) for name in manifest.pipeline.shown}
    problems = [
        f"parity: {component} {tensor} was not compared" for component, tensor in sorted(required - set(compared))
    ]
    for key, found in compared.items():
        allowed = bounds.get(key)
        if allowed is None or (found.tolerance, found.centred_tolerance) != (allowed.rel_l2, allowed.centred):
            problems.append(f"parity: the tolerance of {found.component} {found.tensor} is not the bundle's")
    if (made.bundle.precision, made.bundle.target) != (manifest.precision, manifest.target):
        problems.append("bundle: precision and target are not the bundle's")
    if dict(made.bundle.sizes) != (sizes := measured_sizes(bundle)):
        problems.append(f"bundle: expected runs of {sizes}, the bundle's golden sample, got {dict(made.bundle.sizes)}")
    known = {component.name for component in manifest.components}
    if unknown := set(made.latency.components) - known:
        problems.append(f"latency: components {', '.join(sorted(unknown))!s:.80} are not the bundle's")
    _refuse(problems)


def _refuse(problems: list[str]) -> None:
    if problems:
        shown, more = "; ".join(problems[:MAX_SHOWN]), len(problems) - MAX_SHOWN
        raise ReportError(
            f"report: {shown}{f'; and {more} more' if more > 0 else ''}: it was changed or damaged; "
            "run perceiver-run selftest again"
        )


def _signs(made: SelfTest) -> Iterator[str]:
    """Numbers below 0 or not finite. The reader refuses NaN as JSON; this one also holds for data in memory."""
    for part in dataclasses.fields(made):
        for where, number in _numbers(schema.encode(getattr(made, part.name)), part.name):
            if not math.isfinite(number) or (number < 0 and MAY_BE_NEGATIVE.isdisjoint(where.split("."))):
                yield f"{where}: expected a number from 0, got {number:.6g}"


def _numbers(value: Any, where: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield where, value


def _distributions(made: SelfTest) -> Iterator[str]:
    """Percentiles, mean and interval are those of the samples."""
    for name, stated in _series(made.latency).items():
        if not stated.samples:
            yield f"latency: {name} has no samples"
        elif wrong := _departs(stated, Distribution.of(stated.samples)):
            yield f"latency: {', '.join(wrong)} of {name} do not follow from its samples"


def _series(latency: LatencyReport) -> dict[str, Distribution]:
    series = {"total": latency.total, "overhead": latency.overhead, **latency.components}
    series |= {f"{each.callers} callers": each.latency for each in latency.callers}
    if (loop := latency.open_loop) is not None:
        series |= {"open loop": loop.latency, "waiting": loop.waiting, "queue depth": loop.queue_depth}
    return series


def _departs(stated: Distribution, found: Distribution) -> list[str]:
    return [
        field.name
        for field in dataclasses.fields(found)
        if not _close(getattr(stated, field.name), getattr(found, field.name), ROUNDING)
    ]


def _close(a: Any, b: Any, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    pairs = zip(a, b, strict=True) if isinstance(a, tuple) and len(a) == len(b) else ((a, b),)
    return all(
        isinstance(p, (int, float))
        and isinstance(q, (int, float))
        and math.isclose(p, q, rel_tol=tolerance, abs_tol=1e-12)
        for p, q in pairs
    )


def _latency(made: SelfTest) -> Iterator[str]:
    latency = made.latency
    runs = latency.iterations
    if any(len(each.samples) != runs for each in (latency.total, latency.overhead, *latency.components.values())):
        yield f"latency: expected {runs} samples of every series"
        return
    if not latency.components or min(map(min, (latency.total.samples, *_components(latency)))) <= 0:
        yield "latency: expected components, and times above 0"
        return
    shortest = min(map(sum, zip(*_components(latency), strict=True)))
    longest = SLOWER * latency.total.max
    if shortest > longest:
        yield f"latency: components take {shortest:.6g} ms or more, complete runs {latency.total.max:.6g} ms at most"
    highest = latency.batch * runs / sum(latency.total.samples) * 1e3
    if latency.throughput > highest * (1 + LAST_BITS):
        yield f"latency: {latency.throughput:.6g} rows/s, but its samples allow {highest:.6g}"


def _components(latency: LatencyReport) -> tuple[tuple[float, ...], ...]:
    return tuple(each.samples for each in latency.components.values())


def _energy(made: SelfTest) -> Iterator[str]:
    energy, latency = made.latency.energy, made.latency
    if not isinstance(energy, Energy):
        return
    if energy.inferences != latency.batch * latency.iterations or energy.seconds <= 0:
        yield f"energy: expected {latency.batch * latency.iterations} inferences in more than 0 s"
        return
    each = energy.seconds / energy.inferences
    for name, watts in (("joules", energy.mean_watts), ("net_joules", energy.mean_watts - energy.idle_watts)):
        if not _close(getattr(energy, f"{name}_per_inference"), watts * each, LAST_BITS):
            yield f"energy: {name}_per_inference does not follow from power and time"
    runs = sum(latency.total.samples) / 1e3
    if not runs * (1 - LAST_BITS) <= energy.seconds <= MAX_IDLE * runs + IDLE_S:
        yield f"energy: recorded for {energy.seconds:.6g} s, the runs took {runs:.6g} s"


def _parity(made: SelfTest) -> Iterator[str]:
    parity: Parity = made.parity
    if not parity.reports or parity.samples < 1:
        yield "parity: nothing was compared"
    if parity.passed != (bool(parity.reports) and all(each.passed for each in parity.reports)):
        yield "parity: the verdict does not follow from that of the tensors"
    for each in parity.reports:
        if not abs(each.cosine) <= 1 + LAST_BITS:
            yield f"parity: {each.component} {each.tensor}: expected a cosine of -1 to 1, got {each.cosine:.6g}"
        if each.passed != _within(each):
            yield f"parity: the verdict of {each.component} {each.tensor} does not follow from its errors"


def _within(each: ParityReport) -> bool:
    near = each.centred is None or each.centred_tolerance is None or each.centred <= each.centred_tolerance
    return each.nonfinite == 0 and each.rel_l2 <= each.tolerance and near


def _layers(made: SelfTest) -> Iterator[str]:
    if not isinstance(made.layers, Engines):
        return
    for engine in made.layers.engines:
        records = engine.profile[1:]
        if engine.component not in made.latency.components:
            yield f"layers: {engine.component!r:.60} is no component that was measured"
        elif not all(isinstance(each, Mapping) and _positive(each) for each in records):
            yield f"layers: {engine.component}: expected the times of its layers, from 0"
        elif records and not math.isclose(sum(each["percentage"] for each in records), 100, rel_tol=LAST_BITS):
            yield f"layers: {engine.component}: percentages do not add up to 100"


def _positive(record: Mapping[str, Any]) -> bool:
    times = [record.get(key) for key in ("timeMs", "averageMs", "medianMs", "percentage")]
    return all(isinstance(each, (int, float)) and each >= 0 for each in times)


def _conditions(made: SelfTest) -> Iterator[str]:
    latency, conditions = made.latency, made.machine.conditions
    if latency.conditions != conditions:
        yield "machine: its conditions are not those of the latency"
    if made.machine.telemetry.power_mode != conditions.power_mode:
        yield "telemetry: its power mode is not that of the conditions"
    stated = latency.backend, latency.threads, latency.machine, dict(latency.versions)
    if stated != (conditions.backend, conditions.threads, conditions.machine, dict(conditions.versions)):
        yield "latency: backend, threads, machine and versions are not those of its conditions"
    seconds = sum(sum(each.samples) for each in (latency.total, latency.overhead, *latency.components.values())) / 1e3
    if made.machine.telemetry.after.time < seconds:
        yield f"telemetry: {made.machine.telemetry.after.time:.6g} s from first to last, the runs took {seconds:.6g} s"
    if (made.bundle.precision, made.bundle.target) != (conditions.precision, conditions.target):
        yield "bundle: precision and target are not those of the conditions"


CHECKS: tuple[Callable[[SelfTest], Iterator[str]], ...] = (
    _signs,
    _distributions,
    _latency,
    _energy,
    _parity,
    _layers,
    _conditions,
)
