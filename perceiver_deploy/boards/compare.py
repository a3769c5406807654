"""A board's latency beside the forecast for the same bundle and board, and the shares of its peaks that it reached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from perceiver_exporters.roofline.forecast import boards, forecast
from perceiver_exporters.roofline.work import work_of
from perceiver_exporters.targets.target import Board
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.conditions import unit_of
from perceiver_runtime.errors import UsageError
from perceiver_runtime.selftest.records import SelfTest

DEVICES: Mapping[str, str] = {
    "Orin Nano 8GB Super": r"Orin Nano\b",
    "Orin NX 16GB": r"Orin NX\b",
    "AGX Orin 64GB": r"AGX Orin\b",
    "AGX Thor 128GB": r"Jetson (?:AGX )?Thor\b",
    "RTX 3060 12GB": r"RTX 3060(?! Ti| Laptop)\b",
    "RTX 4090 24GB": r"RTX 4090(?! D| Laptop)\b",
    "RTX 5090 32GB": r"RTX 5090(?! D| Laptop)\b",
    "H100 SXM 80GB": r"H100 80GB HBM3\b",
}
"""How boards of the target table name themselves: the device tree's model, or NVML's name."""
MEMORY = 0.85, 1.1
"""A board's usable memory relative to that of its name: firmware keeps some, and makers count in GB or GiB."""
Verdict = Literal["within", "faster than at best", "slower than at worst"]


@dataclass(frozen=True)
class Reached:
    """One component, or `run` for all, beside its forecast.

    Attributes:
        name: Component.
        measured_ms: Median.
        optimistic_ms: Forecast at best.
        pessimistic_ms: Forecast at worst.
        compute: Share of the peak rate that its FLOPs reached.
        bandwidth: Share of the bandwidth that its bytes reached, if no value inside a graph reaches memory: at least
            that much.
        verdict: Where the measured time lies.
    """

    name: str
    measured_ms: float
    optimistic_ms: float
    pessimistic_ms: float
    compute: float
    bandwidth: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """A run and its components beside the forecast of the same precision and sizes."""

    run: Reached
    components: tuple[Reached, ...]


def board_of(made: SelfTest) -> Board | str:
    """The board of the target table that a report is of, or why it is none of them."""
    machine = made.machine
    if unit_of(machine.conditions.backend) == "processor":
        return f"it ran on the processor ({machine.conditions.backend}), forecasts are for GPUs"
    described = f"{machine.conditions.machine}; {machine.telemetry.source}"
    size = machine.telemetry.before.memory_total
    for _, board in boards():
        if re.search(DEVICES[board.name], described):
            if size is not None and MEMORY[0] * board.memory <= size <= MEMORY[1] * board.memory:
                return board
            stated = "not known" if size is None else f"{size / 1e9:.3g} GB"
            return f"{board.name} has {board.memory / 1e9:.0f} GB, the memory of this one is {stated}"
    return "the target table does not have this device"


def compare(made: SelfTest, bundle: Bundle, board: Board) -> Comparison:
    """Put a report beside the forecast.

    Args:
        made: A checked report.
        bundle: The bundle that it is of.
        board: The board that it is of.

    Returns:
        The run and its components.

    Raises:
        UsageError: There is no forecast for this precision on the board.
    """
    sizes = dict(made.bundle.sizes)
    expected = forecast(bundle, board.name, sizes=sizes)
    work = {each.component: each for each in work_of(bundle, sizes)}
    measured = {name: each.p50 for name, each in made.latency.components.items()}
    if missing := sorted(set(work) - set(measured)):
        raise UsageError(f"forecast of {', '.join(missing)}: the report did not measure it")
    compute = {n: sum(f / board.peak[kind] for kind, f in w.flops_by_type.items()) * 1e3 for n, w in work.items()}
    memory = {name: each.bytes_moved() / board.bandwidth * 1e3 for name, each in work.items()}
    components = tuple(
        _reached(
            each.component,
            measured[each.component],
            (each.optimistic_s * 1e3, each.pessimistic_s * 1e3),
            compute[each.component],
            memory[each.component],
        )
        for each in expected.components
    )
    bounds = expected.optimistic_s * 1e3, expected.pessimistic_s * 1e3
    run = _reached("run", made.latency.total.p50, bounds, sum(compute.values()), sum(memory.values()))
    return Comparison(run, components)


def _reached(name: str, measured: float, bounds: tuple[float, float], compute: float, memory: float) -> Reached:
    low, high = bounds
    verdict: Verdict = (
        "faster than at best" if measured < low else "slower than at worst" if measured > high else "within"
    )
    return Reached(name, measured, low, high, compute / measured, memory / measured, verdict)
