"""Run the self-test of a device with a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import PurePath

from perceiver_runtime.benchmark.latency import measure
from perceiver_runtime.benchmark.report import LatencyReport, NotMeasured
from perceiver_runtime.conditions import Conditions, unit_of
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.execution.choice import choose
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format import strict_json
from perceiver_runtime.golden import load_golden
from perceiver_runtime.machine import jetpack_release
from perceiver_runtime.measure.verify import verify
from perceiver_runtime.progress import report
from perceiver_runtime.selftest.records import (
    BundleRecord,
    EngineRecord,
    Engines,
    Machine,
    Parity,
    SelfTest,
    Telemetry,
    content_sha256,
    measured_sizes,
)
from perceiver_runtime.telemetry.sources import open_sensors

LAYER_RUNS = 20


def self_test(session: Session, iterations: int | None = None, warmup: int | None = None) -> SelfTest:
    """Verify, time and inspect what a session runs. What can't be measured here says so, with the reason.

    Args:
        session: An open session, opened with `check_finite=False`.
        iterations: Least number of measured runs, as for `measure`.
        warmup: Runs before them; None: until times are stable.

    Returns:
        All parts of the report. It has no name of a host or user; `archive.write_report` removes paths from texts.

    Raises:
        BundleError: The bundle has no golden samples, or is damaged.
    """
    sensors = open_sensors(unit_of(session.backend))
    before = sensors.sample()
    verified = verify(session)
    latency = _latency(session, iterations, warmup)
    layers = _layers(session)
    after = dataclasses.replace(sample := sensors.sample(), time=sample.time - before.time)
    manifest = session.manifest
    model = PurePath(manifest.source.name).name
    conditions = _anonymous(latency.conditions, model)
    return SelfTest(
        bundle=BundleRecord(
            sha256=content_sha256(manifest),
            model=model,
            family=manifest.source.family,
            precision=manifest.precision,
            target=manifest.target,
            sizes=measured_sizes(session.bundle),
        ),
        parity=Parity(verified.passed, verified.samples, verified.origin, verified.reports),
        latency=dataclasses.replace(latency, conditions=conditions),
        layers=layers,
        machine=Machine(
            conditions=conditions,
            jetpack=jetpack_release(),
            telemetry=Telemetry(sensors.description, sensors.power_mode, dataclasses.replace(before, time=0.0), after),
        ),
    )


def _latency(session: Session, iterations: int | None, warmup: int | None) -> LatencyReport:
    """Latency, with energy where there is a source of it."""
    try:
        return measure(session, None, 1, warmup, iterations, power=True)
    except UnavailableError as error:
        latency = measure(session, None, 1, warmup, iterations)
        return dataclasses.replace(latency, energy=NotMeasured(str(error)))


def _layers(session: Session) -> Engines | NotMeasured:
    if unit_of(session.backend) == "processor":
        return NotMeasured(f"{session.backend} runs no engines: {session.reason}")
    from perceiver_runtime.tensorrt.backend import TensorRT  # where nothing runs engines, these modules are not loaded
    from perceiver_runtime.tensorrt.layer_times import time_layers

    backend = choose(session.bundle, session.backend).backend
    if not isinstance(backend, TensorRT):
        return NotMeasured(f"{session.backend} runs no engines")
    report("time the layers of the engines")
    calls = load_golden(session.bundle)[0].components
    made = []
    for entry in session.manifest.components:
        timed = time_layers(session.bundle, backend, entry, calls[entry.name].inputs, LAYER_RUNS)
        try:
            layers = strict_json.loads(timed.layers)
        except ValueError as error:
            return NotMeasured(f"{entry.name}: TensorRT describes the layers in no valid JSON: {error}")
        made.append(EngineRecord(entry.name, layers, tuple(timed.profile())))
    return Engines(tuple(made))


def _anonymous(conditions: Conditions, model: str) -> Conditions:
    """With the model's name in the place of that of the bundle's directory."""
    return dataclasses.replace(conditions, bundle=model, model=model)
