"""Forecasts of latency on boards that are not at hand. A forecast is a type of its own, never a measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ComponentForecast:
    """Seconds of all calls of one component in a run, at best and at worst, and what takes longest at best."""

    component: str
    optimistic: float
    pessimistic: float
    bound: str


@dataclass(frozen=True)
class Forecast:
    """A forecast for one board: nothing in it was measured there.

    Attributes:
        board: Name of the board.
        target: Target that the board belongs to.
        precision: Precision of the products with a weight.
        components: Range of each component.
        optimistic: Seconds of a run, at best.
        pessimistic: Seconds of a run, at worst.
        memory: Bytes that a session is expected to need.
        fits: Whether the board has that memory.
        assumptions: What the range rests on, as sentences.
        source: Where the board's peaks come from.
    """

    board: str
    target: str
    precision: str
    components: tuple[ComponentForecast, ...]
    optimistic: float
    pessimistic: float
    memory: int
    fits: bool
    assumptions: tuple[str, ...]
    source: str
