"""Ceilings of a roofline: rates of matrix products and of memory, measured here or taken from data sheets."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

import numpy as np

from perceiver_exporters.roofline.probes import copy_rate, product_rate, starting_times
from perceiver_exporters.targets.target import Board
from perceiver_runtime.backends import PROCESSOR_BACKENDS, open_backend
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.machine import machine, usable_cores
from perceiver_runtime.progress import report

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
TYPES = ("fp32", "int8")


@dataclass(frozen=True)
class Measurement:
    """What ceilings were measured with, where and when.

    Attributes:
        backend: Backend that computed the products.
        threads: Its threads.
        machine: Processor, cores and operating system.
        versions: Versions of Python, NumPy and the backend's libraries.
        date: Start of the measurement, UTC, ISO 8601.
        load: Average number of running processes in the minute before; None if not known.
    """

    backend: str
    threads: int
    machine: str
    versions: Mapping[str, str]
    date: str
    load: float | None


@dataclass(frozen=True)
class Ceilings:
    """Highest rates of a machine. Measured ones and those of data sheets are never mixed in one object.

    Attributes:
        flops_per_s: FLOP/s of matrix products by the type of the stored operands.
        bytes_per_s: Bytes read plus bytes written per second.
        source: What was measured, or the data sheet.
        measurement: Where and when it was measured; None for a data sheet.
        cache: Bytes of the largest cache, in which weights stay between calls if they fit; 0 if not known.
        call_s: Seconds to start one call; 0 if not known.
        node_s: Seconds to start one node within a call; 0 if not known.
    """

    flops_per_s: Mapping[str, float]
    bytes_per_s: float
    source: str
    measurement: Measurement | None = None
    cache: int = 0
    call_s: float = 0.0
    node_s: float = 0.0


def board_ceilings(board: Board) -> Ceilings:
    """The peaks of a board of the target table, with their source."""
    return Ceilings(board.peak, board.bandwidth, f"{board.name}: {board.source}")


def measure_ceilings(backend: str, threads: int | None, types: Collection[str] = TYPES) -> Ceilings:
    """Measure this machine in a few seconds, once in a process for the same arguments.

    Products run through the backend itself, so that a type counts at the rate in which this backend computes graphs of
    that type: FP16 that ONNX Runtime widens at the rate of FP32, FP32 on `openvino-bf16` at the rate of BF16.

    Args:
        backend: Name of a backend that computes on the processor.
        threads: Number of its threads; None takes all cores.
        types: Types of the stored operands: fp32, fp16, bf16, int8 (as `Work.flops_by_type` has them).

    Returns:
        Medians over several rounds of the fastest call of each.

    Raises:
        UnavailableError: The backend is not on this machine, or computes elsewhere than on the processor.
        UsageError: A type has no probe.
    """
    if backend not in PROCESSOR_BACKENDS:
        raise UnavailableError(
            f"ceilings of backend {backend}: expected one of {', '.join(sorted(PROCESSOR_BACKENDS))}, whose rates are "
            "measured here; take those of a board of the target table (board_ceilings)"
        )
    return _measured(backend, threads or usable_cores(), tuple(sorted(set(types))))


@lru_cache
def _measured(backend: str, threads: int, types: tuple[str, ...]) -> Ceilings:
    report(f"measure the ceilings of this machine: {', '.join(types)} products on {backend}, copies")
    opened = open_backend(backend, threads)
    measurement = Measurement(
        backend=backend,
        threads=threads,
        machine=machine(),
        versions={"python": platform.python_version(), "numpy": np.__version__, **opened.versions},
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )
    cache = largest_cache()
    call_s, node_s = starting_times(opened)
    return Ceilings(
        flops_per_s={kind: product_rate(opened, kind) for kind in types},
        bytes_per_s=copy_rate(threads, cache),
        source=f"measured here: matrix products through {backend} and copies of arrays, both with {threads} threads",
        measurement=measurement,
        cache=cache,
        call_s=call_s,
        node_s=node_s,
    )


def largest_cache(folder: Path = CACHES) -> int:
    """Bytes of the largest cache of a processor; 0 if the system does not tell."""
    sizes = [path.read_text(encoding="utf-8").strip() for path in folder.glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)
