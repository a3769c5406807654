"""Everything that the product writes, written as the product writes it, for faults to strike at."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import onnx
import tiny_bundles
from engines.simulation.jetson import simulated_jetson
from faults import subjects

from perceiver_deploy.api import history
from perceiver_deploy.api.bench import BenchmarkReport
from perceiver_deploy.api.growth import GrowthReport, write_growth
from perceiver_deploy.api.reporting.data import ReportData
from perceiver_deploy.api.reporting.page import write_page
from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.sources.origin import Origin
from perceiver_deploy.sources.source_record import write_record
from perceiver_exporters.diagnose.bisection.replay import RECORD, Replay, write_replay
from perceiver_exporters.engines import build
from perceiver_exporters.exporter import Exporter
from perceiver_exporters.precision import require
from perceiver_exporters.precision.calibration.statistics import Statistics
from perceiver_exporters.precision.calibration.store import Store
from perceiver_exporters.precision.record import ComponentPrecision
from perceiver_exporters.records import ComponentRecord, Records
from perceiver_exporters.targets.target import TARGETS
from perceiver_exporters.trtexec.commands import SCRIPT_NAME, trtexec_commands, write_trtexec
from perceiver_runtime.benchmark.statistics import Distribution
from perceiver_runtime.benchmark.trace import Trace
from perceiver_runtime.cli import predict
from perceiver_runtime.conditions import Conditions
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.format import arrays, staging
from perceiver_runtime.format.tuning import Measured, write_tuning
from perceiver_runtime.manifest import Tolerance
from perceiver_runtime.measure.compare import Bound
from perceiver_runtime.selftest.archive import write_report
from perceiver_runtime.selftest.run import self_test
from perceiver_runtime.tensorrt.builder.bundle import EngineOptions, build_engines

CONDITIONS = Conditions("b", "m", "fp32", "cpu", "onnxruntime", 1, "a machine", (), {}, "2026-01-01T00:00:00Z", 0.1)
TARGET = "jetson-orin"


@dataclass(frozen=True)
class Writer:
    """One kind of artefact.

    Attributes:
        write: Writes it in a folder.
        before: Makes the folder as it is before.
        last: Name of the file without which the others, a directory, count as not there.
        settle: Lets the product find again what a killed write put aside.
    """

    write: Callable[[Path], object]
    before: Callable[[Path], object] = lambda folder: None
    last: str = ""
    settle: Callable[[Path], object] = lambda folder: None


class Prepared(Exporter):
    """An exporter that computes once, and writes each time."""

    def records(self, components: Sequence[str] = ()) -> Records:
        return self._records

    def tolerances(self, records: Records) -> tuple[Tolerance, ...]:
        return self._tolerances

    def prove(self, record: ComponentRecord) -> ComponentPrecision:
        return self._proofs[record.component.name]

    @cached_property
    def _records(self) -> Records:
        return super().records()

    @cached_property
    def _tolerances(self) -> tuple[Tolerance, ...]:
        return super().tolerances(self._records)

    @cached_property
    def _proofs(self) -> dict[str, ComponentPrecision]:
        return {name: super(Prepared, self).prove(record) for name, record in self._records.components.items()}


def writers() -> dict[str, Writer]:
    """All writers, by what they write."""
    return {**dict(_bundles()), **dict(_files())}


def _bundles() -> Iterator[tuple[str, Writer]]:
    place, precision = require(TARGETS, "cpu", "fp32")
    exporter, jetson = Prepared(subjects.perceiver(), precision, place), simulated_jetson()

    def export(folder: Path) -> object:
        return exporter.export(folder / "bundle", overwrite=True)

    def engines(folder: Path) -> object:
        options = EngineOptions(device=jetson.device, timing_cache=folder / "timings")
        return build_engines(folder / "bundle", TARGET, jetson.trt, options)

    def engines_without_exchange(folder: Path) -> object:
        with mock.patch.object(staging.ctypes, "CDLL", return_value=SimpleNamespace()):
            return engines(folder)

    def engines_before(folder: Path) -> None:
        tiny(folder)
        (folder / "timings").write_bytes(b"older timings")

    yield "bundle, new", Writer(export)
    yield "bundle, overwritten", Writer(export, tiny)
    yield "engines and timing cache", Writer(engines, engines_before)
    yield (
        "engines, where directories can't be exchanged",
        Writer(engines_without_exchange, engines_before, settle=_put_back),
    )
    yield "build kit", Writer(lambda folder: build(folder / "bundle", TARGET, overwrite=True), tiny)


def _files() -> Iterator[tuple[str, Writer]]:
    numbers = {"x": np.arange(6, dtype=np.float32)}
    measured = (Measured("onnxruntime", 1, {"onnxruntime": "1"}, 1.0, 1.0, 1.0, 1.0),)
    result = BenchmarkReport(
        "b", "onnxruntime", "fp32", 1, 1, Distribution.of((0.1, 0.2)), {}, {}, None, "", CONDITIONS
    )
    statistics = Statistics()
    statistics.tensors["x"].see(np.arange(6, dtype=np.float32).reshape(2, 3), "x")
    data = ReportData("perceiver-export report", "2026-01-01", (), (), (), {}, {}, ())
    curves = GrowthReport("bundle", "fp32", "onnxruntime", 1, ())
    replay = Replay("bundle", "head", "auto", {"y": Bound(1e-6)}, node="n")
    made = None

    def selftest(folder: Path) -> object:
        nonlocal made
        if made is None:
            with open_session(folder / "bundle", threads=1, check_finite=False) as session:
                made = self_test(session, iterations=2, warmup=1)
        return write_report(folder / "selftest.zip", made, folder / "bundle")

    def trace(folder: Path) -> object:
        return Trace().write(folder / "trace.json", {"bundle": "b"})

    def trtexec(folder: Path) -> object:
        return write_trtexec(trtexec_commands(folder / "bundle", TARGET), folder / "trtexec")

    yield "tuning", Writer(lambda folder: write_tuning(folder / "bundle", measured), old(tiny, "bundle.tuning.json"))
    yield (
        "calibration cache",
        Writer(
            lambda folder: Store(folder, "x").save(statistics), lambda folder: Store(folder, "x").save(Statistics())
        ),
    )
    yield (
        "bench --save",
        Writer(
            lambda folder: history.append(folder / "history.jsonl", [result]),
            lambda folder: history.append(folder / "history.jsonl", [dataclasses.replace(result, bundle="a")]),
        ),
    )
    yield "report", Writer(lambda folder: write_page(data, folder / "report.html"), old(None, "report.html"))
    yield "selftest", Writer(selftest, old(tiny, "selftest.zip"))
    yield "run -o", Writer(lambda folder: arrays.save(folder / "out.npz", numbers), old(None, "out.npz"))
    yield "predict -o", Writer(lambda folder: predict._write_json(folder / "o.json", [1], []), old(None, "o.json"))
    yield "benchmark --trace", Writer(trace, old(None, "trace.json"))
    yield "growth -o", Writer(lambda folder: write_growth(curves, folder / "growth.json"), old(None, "growth.json"))
    yield (
        "source record",
        Writer(
            lambda folder: write_record(folder / "bundle", "0" * 64, Origin("hub/id"), LoadOptions()),
            old(None, "bundle.source.json"),
        ),
    )
    yield (
        "replay directory",
        Writer(
            lambda folder: write_replay(folder / "replay", replay, numbers, {"y": numbers["x"]}, _graph()),
            lambda folder: write_replay(folder / "replay", replay, numbers, {"y": numbers["x"] + 1}, _graph()),
            last=f"replay/{RECORD}",
        ),
    )
    yield "trtexec directory", Writer(trtexec, tiny, last=f"trtexec/{SCRIPT_NAME}")


def tiny(folder: Path) -> Path:
    """A bundle that was there before."""
    return tiny_bundles.write(folder / "bundle", tiny_bundles.full_model(), tiny_bundles.feeds())


def old(others: Callable[[Path], object] | None, name: str) -> Callable[[Path], None]:
    """A file that was there before, beside others."""

    def make(folder: Path) -> None:
        if others is not None:
            others(folder)
        (folder / name).write_text("older", encoding="utf-8")

    return make


def _graph() -> onnx.ModelProto:
    return tiny_bundles.full_model().part("head").model()


def _put_back(folder: Path) -> None:
    """What the next export does first."""
    staging._sweep(folder / "bundle")


def copied(folder: Path, place: Path) -> Path:
    """A copy of a folder at a new place."""
    return Path(shutil.copytree(folder, place))
