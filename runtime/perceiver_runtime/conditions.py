"""The conditions of a measurement: what ran, on what, in which state. Every result for programs names them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from perceiver_runtime.backends import PROCESSOR_BACKENDS
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.execution.session import Session
from perceiver_runtime.machine import instructions, machine
from perceiver_runtime.release import __version__
from perceiver_runtime.telemetry.sample import Source
from perceiver_runtime.telemetry.sources import Unit, open_sensors


@dataclass(frozen=True)
class Conditions:
    """What a result was measured with. It names no host, user or absolute path.

    Attributes:
        bundle: Name of the bundle's directory.
        model: Name of its source.
        precision: Precision of the bundle.
        target: Target of the bundle.
        backend: Backend; empty if nothing was run.
        threads: CPU threads; None for backends without, or if nothing was run.
        machine: Processor or board, cores, and operating system.
        instructions: Extensions of the processor that decide about speed, or the GPU's compute capability.
        versions: Versions of this runtime, Python, NumPy and the backend's libraries.
        date: When it was measured: UTC, ISO 8601.
        load: Load average of the last minute before; None where the system does not tell.
        power_mode: Power mode of a Jetson, power limit of a GPU, or frequency governor of a processor.
        clocks: Clocks in hertz, by unit.
        temperature: Degrees Celsius by sensor.
        digest: Digest of the bundle (see `perceiver_runtime.format.digest`).
    """

    bundle: str
    model: str
    precision: str
    target: str
    backend: str
    threads: int | None
    machine: str
    instructions: tuple[str, ...]
    versions: Mapping[str, str]
    date: str
    load: float | None
    power_mode: str | None = None
    clocks: Mapping[str, float] | None = None
    temperature: Mapping[str, float] | None = None
    digest: str = ""


@runtime_checkable
class HasComputeCapability(Protocol):
    """A device, or its sensors, that knows its GPU's compute capability."""

    def compute_capability(self) -> str | None:
        """Such as `8.7`."""


def conditions_of(session: Session) -> Conditions:
    """The conditions of what an open session does now; sensors that this machine lacks are None.

    Args:
        session: An open session.

    Returns:
        Its conditions, with the load before.
    """
    sensors = open_sensors(unit_of(session.backend))
    return conditions_here(
        session.bundle,
        backend=session.backend,
        threads=session.threads,
        versions=session.versions,
        extensions=_extensions(session, sensors),
        sensors=sensors,
    )


def conditions_here(
    bundle: Bundle,
    *,
    backend: str = "",
    threads: int | None = None,
    versions: Mapping[str, str] | None = None,
    extensions: tuple[str, ...] | None = None,
    sensors: Source | None = None,
) -> Conditions:
    """The conditions of what is done with a bundle on this machine now, a session or not.

    Args:
        bundle: A loaded bundle.
        backend: What runs it.
        threads: CPU threads.
        versions: Versions of the libraries that run it.
        extensions: What decides about the speed of the unit that runs it; None: the processor's.
        sensors: Source of power mode, clocks and temperature.

    Returns:
        The conditions.
    """
    sample = sensors.sample() if sensors is not None else None
    return Conditions(
        bundle=Path(os.path.realpath(bundle.path)).name,
        model=bundle.manifest.source.name,
        precision=bundle.manifest.precision,
        target=bundle.manifest.target,
        backend=backend,
        threads=threads,
        machine=machine(),
        instructions=instructions() if extensions is None else extensions,
        versions={
            "perceiver-runtime": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            **(versions or {}),
        },
        date=f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        power_mode=sensors.power_mode if sensors is not None else None,
        clocks=(sample.clock or None) if sample is not None else None,
        temperature=(sample.temperature or None) if sample is not None else None,
        digest=bundle.manifest.digest,
    )


def unit_of(backend: str) -> Unit:
    """What a backend computes on."""
    return "processor" if backend in PROCESSOR_BACKENDS else "gpu"


def _extensions(session: Session, sensors: Source) -> tuple[str, ...] | None:
    if unit_of(session.backend) == "processor":
        return None
    known = next((each for each in (session.device, sensors) if isinstance(each, HasComputeCapability)), None)
    capability = known.compute_capability() if known is not None else None
    return () if capability is None else (f"compute capability {capability}",)
