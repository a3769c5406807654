"""Ceilings of a roofline: rates of matrix products and of memory, measured here or taken from data sheets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perceiver_exporters.targets.target import Board


@dataclass(frozen=True)
class Ceilings:
    """Highest rates of a machine. Measured ones and those of data sheets are never mixed in one object.

    Attributes:
        flops_per_s: FLOP/s of matrix products by the type of the stored operands.
        bytes_per_s: Bytes read plus bytes written per second.
        measured: Whether they were measured on this machine.
        source: Of measured ones, what was measured, how and when; of others the data sheet.
        cache: Bytes of the largest cache, in which weights stay between calls if they fit; 0 if not known.
        call_s: Seconds to start one call; 0 if not known.
        node_s: Seconds to start one node within a call; 0 if not known.
    """

    flops_per_s: Mapping[str, float]
    bytes_per_s: float
    measured: bool
    source: str
    cache: int = 0
    call_s: float = 0.0
    node_s: float = 0.0


def board_ceilings(board: Board) -> Ceilings:
    """The peaks of a board of the target table, with their source."""
    return Ceilings(board.peak, board.bandwidth, measured=False, source=f"{board.name}: {board.source}")
