"""What a report says, as frozen data: the page, its JSON and its Markdown table are made from this alone.

What could not be measured is a `NotMeasured` with the reason, never a zero and never left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perceiver_deploy.api.bench import BenchmarkReport
from perceiver_deploy.api.evaluate import EvaluationReport
from perceiver_exporters.diagnose.error_growth import ErrorGrowth
from perceiver_exporters.precision.record import ComponentPrecision
from perceiver_exporters.roofline.forecast import Forecast
from perceiver_exporters.roofline.points import Roofline
from perceiver_runtime.benchmark.report import LatencyReport, NotMeasured
from perceiver_runtime.manifest import ComponentEntry, DataRecord, Source
from perceiver_runtime.measure.verify import VerifyReport
from perceiver_runtime.pipeline import Pipeline
from perceiver_runtime.settings import Processing
from perceiver_runtime.tensors import Profile


@dataclass(frozen=True)
class SummaryRow:
    """One row of the first table: a bundle, or the reference itself, on one backend of one device.

    Attributes:
        model: Name of the model.
        bundle: Name of the bundle; empty for the reference.
        precision: Precision of its matrix products.
        backend: What ran it.
        threads: CPU threads; None for backends without any, or not known.
        device: Processor, board or GPU.
        batch: Rows per run.
        accuracy: Score of the first output that the data score: an accuracy, or else the task's first metric.
        accuracy_name: Name of that score.
        accuracy_difference: The score minus the reference's.
        share: Whether the score is a share of samples, such as an accuracy.
        p50_ms: Median latency, between `p50_low_ms` and `p50_high_ms` with 95% confidence (None: too few runs).
        p95_ms: 95th percentile of the latency.
        throughput: Rows per second.
        speedup: PyTorch eager's time over this one's in one interleaved run, between `speedup_low` and `speedup_high`
            with 95% confidence.
        peak_memory: Measured peak, in bytes.
        size: Bytes on disk.
        parity: `passed`, `failed` or `damaged`; empty where nothing was compared.
        energy_joules: Per row.
        reasons: Why a field is None, by its name.
    """

    model: str
    bundle: str
    precision: str
    backend: str
    threads: int | None
    device: str
    batch: int
    accuracy: float | None = None
    accuracy_name: str = ""
    accuracy_difference: float | None = None
    share: bool = True
    p50_ms: float | None = None
    p50_low_ms: float | None = None
    p50_high_ms: float | None = None
    p95_ms: float | None = None
    throughput: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    peak_memory: int | None = None
    size: int | None = None
    parity: str = ""
    energy_joules: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One bundle on one backend of this machine, at one batch size.

    Attributes:
        backend: What was asked to run it; `auto` for the session's choice.
        batch: Rows per run.
        parity: Comparison with the golden samples.
        latency: Latency, memory and energy of the lean runtime in a process of its own.
        against: Latency in one interleaved run with PyTorch eager and the model's other bundles.
        roofline: What its components achieve of what this machine allows.
    """

    backend: str
    batch: int
    parity: VerifyReport | NotMeasured
    latency: LatencyReport | NotMeasured
    against: BenchmarkReport | NotMeasured
    roofline: Roofline | NotMeasured


@dataclass(frozen=True)
class BundleReport:
    """One bundle.

    Attributes:
        name: Its directory's name, with as many directories above it as tell it from the others.
        precision: Its precision.
        target: Its target.
        opset: ONNX opset of its graphs.
        components: Its components.
        files: Bytes of each file.
        tools: Versions that it was made with.
        precisions: Proof of the precision of each component.
        breaches: Where its graphs are not what its manifest claims.
        runs: What was measured, for each backend and batch size.
        growth: Error over the repetitions of its blocks.
        accuracy: Metrics of each output that the data score, beside the reference's.
        forecasts: Forecasts of its latency on boards; empty if no board computes in its precision.
    """

    name: str
    precision: str
    target: str
    opset: int
    components: tuple[ComponentEntry, ...]
    files: Mapping[str, int]
    tools: Mapping[str, str]
    precisions: tuple[ComponentPrecision, ...] | NotMeasured
    breaches: tuple[str, ...]
    runs: tuple[Run, ...]
    growth: tuple[ErrorGrowth, ...] | NotMeasured
    accuracy: tuple[EvaluationReport[Any], ...] | NotMeasured
    forecasts: tuple[Forecast, ...] | NotMeasured

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(self.files.values())

    @property
    def parity(self) -> str:
        """The verdict over all backends: `passed`, `failed`, or empty where nothing was compared."""
        verdicts = [run.parity.passed for run in self.runs if not isinstance(run.parity, NotMeasured)]
        if self.breaches or not all(verdicts):
            return "failed"
        return "passed" if verdicts else ""


@dataclass(frozen=True)
class ModelReport:
    """One model and its bundles.

    Attributes:
        source: Where the weights come from.
        parameters: Number of parameters, those of components with shared weights counted once.
        pipeline: How components are wired, in the first bundle.
        profiles: Sizes that it takes, in the first bundle.
        labels: Names of its classes.
        golden_origin: Where golden inputs came from.
        processing: How its inputs are made; None where nothing is stated.
        data: The data that it was exported with.
        bundles: Its bundles, in the order in which they were given.
        commands: Command line that repeats a section, by the section's name.
    """

    source: Source
    parameters: int
    pipeline: Pipeline
    profiles: tuple[Profile, ...]
    labels: tuple[str, ...]
    golden_origin: str
    processing: Processing | None
    data: DataRecord | None
    bundles: tuple[BundleReport, ...]
    commands: Mapping[str, str]


@dataclass(frozen=True)
class Damaged:
    """A bundle that can't be opened, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ReportData:
    """The whole report.

    Attributes:
        command: The command line that repeats it.
        date: When it was made, UTC.
        summary: The first table.
        models: What was measured of each model.
        damaged: Bundles that can't be opened.
        devices: Latency that was measured on devices, by the name of the file that holds it.
        environment: What each machine was, as names and values: this one, and devices.
        failures: Checks that failed, as sentences; empty if all passed.
    """

    command: str
    date: str
    summary: tuple[SummaryRow, ...]
    models: tuple[ModelReport, ...]
    damaged: tuple[Damaged, ...]
    devices: Mapping[str, tuple[LatencyReport, ...]]
    environment: Mapping[str, Mapping[str, str]]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures
