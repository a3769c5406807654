"""Content of a self-test's report: frozen data, one JSON file for each part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perceiver_runtime.benchmark.report import LatencyReport, NotMeasured
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.conditions import Conditions
from perceiver_runtime.format import strict_json
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.format.wiring import bind_symbols
from perceiver_runtime.golden import load_golden
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.measure.compare import ParityReport
from perceiver_runtime.telemetry.sample import Sample


@dataclass(frozen=True)
class BundleRecord:
    """The bundle that was tested.

    Attributes:
        sha256: Digest of its graphs, weights and golden samples (see `content_sha256`).
        model: Name of its source.
        family: Family of the model.
        precision: Precision of the bundle.
        target: Target of the bundle.
        sizes: Sizes of the symbolic dimensions of the measured runs.
    """

    sha256: str
    model: str
    family: str
    precision: str
    target: str
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Parity:
    """Verdict of `verify`, with the distances of all tensors."""

    passed: bool
    samples: int
    origin: str
    reports: tuple[ParityReport, ...]


@dataclass(frozen=True)
class EngineRecord:
    """One engine: TensorRT's JSON of its layers and tactics, and the records of `trtexec --exportProfile`."""

    component: str
    layers: Any
    profile: tuple[Any, ...]


@dataclass(frozen=True)
class Engines:
    """The engines of all components."""

    engines: tuple[EngineRecord, ...]


@dataclass(frozen=True)
class Telemetry:
    """Sensors before and after the measurement, in seconds since the first sample."""

    source: str
    power_mode: str | None
    before: Sample
    after: Sample


@dataclass(frozen=True)
class Machine:
    """The device: conditions with versions, the release of Jetson Linux (None off Jetson), and sensors."""

    conditions: Conditions
    jetpack: str | None
    telemetry: Telemetry


@dataclass(frozen=True)
class SelfTest:
    """All parts of a report; each field is a file of that name with the ending `.json`."""

    bundle: BundleRecord
    parity: Parity
    latency: LatencyReport
    layers: Engines | NotMeasured
    machine: Machine


def content_sha256(manifest: Manifest) -> str:
    """Digest of what a bundle computes: graphs, weights and golden samples.

    Engines, model card and build kit do not count, so that it is the same on the workstation and on the device.
    """
    counted = {
        path: entry.sha256
        for path, entry in manifest.files.items()
        if path.startswith("onnx/") or path in manifest.golden
    }
    return hashlib.sha256(strict_json.dumps(counted, indent=None, sort_keys=True).encode()).hexdigest()


def measured_sizes(bundle: Bundle) -> dict[str, int]:
    """Sizes of the symbolic dimensions of what is measured: the first golden sample, at batch 1. Raises BundleError."""
    feeds = load_golden(bundle)[0].feeds
    given = [spec for spec in bundle.manifest.pipeline.inputs if spec.name in feeds]
    symbols = bind_symbols(given, {spec.name: feeds[spec.name].shape for spec in given}, "golden sample")
    return {symbol: 1 if symbol == BATCH else int(size) for symbol, size in symbols.items()}
