"""What a machine was while it was measured, as names and values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from perceiver_deploy.api.reporting.data import ModelReport
from perceiver_runtime.benchmark.report import LatencyReport, NotMeasured


def runs_of(models: Iterable[ModelReport]) -> list[LatencyReport]:
    """What the lean runtime measured of bundles here."""
    runs = (run.latency for model in models for bundle in model.bundles for run in bundle.runs)
    return [latency for latency in runs if not isinstance(latency, NotMeasured)]


def environment(reports: Iterable[LatencyReport], more: Mapping[str, str]) -> dict[str, str]:
    """The conditions of several measurements: where they differ, all values."""
    found: dict[str, list[str]] = {}
    for report in reports:
        for name, value in (*_facts(report), *more.items()):
            if value not in found.setdefault(name, []):
                found[name].append(value)
    return {name: "; ".join(values) for name, values in found.items()} or dict(more)


def _facts(report: LatencyReport) -> Iterator[tuple[str, str]]:
    conditions = report.conditions
    yield "machine", conditions.machine
    yield "extensions", ", ".join(conditions.instructions) or "none known"
    yield from conditions.versions.items()
    yield "power mode", conditions.power_mode or "not known"
    yield "clocks", _values(conditions.clocks, 1e6, "MHz")
    yield "temperature", _values(conditions.temperature, 1.0, "\u00b0C")
    yield "load before", "not known" if conditions.load is None else f"{conditions.load:g}"
    yield "load of others", str(report.others or "not known")
    yield "transfers", report.transfers
    yield "CUDA graphs", report.cuda_graphs


def _values(values: Mapping[str, float] | None, unit: float, name: str) -> str:
    return ", ".join(f"{key} {value / unit:.0f} {name}" for key, value in (values or {}).items()) or "not known"
