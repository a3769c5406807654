"""Size on disk by part of the bundle, measured memory, and energy where it can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from perceiver_deploy.api.reporting.charts.axes import linear_axis
from perceiver_deploy.api.reporting.charts.bars import Bar, bars
from perceiver_deploy.api.reporting.charts.picture import Picture, picture
from perceiver_deploy.api.reporting.data import BundleReport, ModelReport
from perceiver_deploy.api.reporting.sections.latency import runs_by_name
from perceiver_deploy.api.reporting.sections.section import Block, Section, not_measured
from perceiver_deploy.api.reporting.tables import megabytes, short, table
from perceiver_runtime.benchmark.report import Energy, LatencyReport, NotMeasured

PARTS = {"onnx/": "graphs and weights", "engines/": "engines", "golden/": "golden samples"}
OTHER = "records"
ENERGY = ("bundle:<", "mJ per row", "net of idle", "mean W", "idle W", "read from:<")


def size(model: ModelReport, key: str) -> Section:
    """A bar for each bundle on disk, and for each run in memory."""
    runs = {name: run.latency for name, run in runs_by_name(model)}
    measured = {name: each for name, each in runs.items() if not isinstance(each, NotMeasured)}
    lacking = [(name, each) for name, each in runs.items() if isinstance(each, NotMeasured)]
    figures = (
        _disk(f"{key}-size", model),
        *_memory(f"{key}-memory", measured),
        *_energy(measured),
    )
    note = (
        "Bytes on disk; the largest resident memory of a process that holds Python, the lean runtime and the bundle; "
        "energy where rails or counters can be read."
    )
    return Section("size", "Size, memory, energy", note, (*figures, *not_measured(lacking)), model.commands["size"])


def _disk(key: str, model: ModelReport) -> Picture:
    sizes = {bundle.name: _parts(bundle) for bundle in model.bundles}
    parts = [part for part in (*PARTS.values(), OTHER) if any(each[part] for each in sizes.values())]
    rows = [
        Bar(name, tuple((each[part] / 1e6, i) for i, part in enumerate(parts)), f"{megabytes(sum(each.values()))} MB")
        for name, each in sizes.items()
    ]
    axis = linear_axis("MB on disk", 0, max(sum(each.values()) for each in sizes.values()) / 1e6)
    cells = [
        (name, *(megabytes(each[part]) if each[part] else "0" for part in parts), megabytes(sum(each.values())))
        for name, each in sizes.items()
    ]
    return picture(
        key,
        "Size on disk",
        "; ".join(f"{row.label}: {row.note}" for row in rows),
        lambda width: bars(width, rows, axis),
        table(("bundle:<", *(f"{part}, MB" for part in parts), "all, MB"), cells),
        [(i, name, "block") for i, name in enumerate(parts)],
    )


def _parts(bundle: BundleReport) -> Mapping[str, int]:
    found = dict.fromkeys((*PARTS.values(), OTHER), 0)
    for path, bytes_ in bundle.files.items():
        found[next((name for start, name in PARTS.items() if path.startswith(start)), OTHER)] += bytes_
    return found


def _memory(key: str, runs: Mapping[str, LatencyReport]) -> Iterator[Block]:
    peaks = {name: each.memory.peak_rss for name, each in runs.items() if each.memory.peak_rss is not None}
    if peaks:
        rows = [Bar(name, ((peak / 1e6, 0),), f"{megabytes(peak)} MB") for name, peak in peaks.items()]
        cells = [(name, megabytes(peak), runs[name].memory.covers) for name, peak in peaks.items()]
        axis = linear_axis("MB of resident memory", 0, max(peaks.values()) / 1e6)
        yield picture(
            key,
            "Peak memory",
            "; ".join(f"{row.label}: {row.note}" for row in rows),
            lambda width: bars(width, rows, axis),
            table(("bundle:<", "peak MB", "of:<"), cells),
        )
    unknown = NotMeasured("this system does not tell its peak memory")
    yield from not_measured([(name, unknown) for name in runs if name not in peaks])


def _energy(runs: Mapping[str, LatencyReport]) -> Iterator[Block]:
    rows = [(name, *_joules(each.energy)) for name, each in runs.items() if isinstance(each.energy, Energy)]
    if rows:
        yield table(ENERGY, rows)
    lacking = [(n, each.energy) for n, each in runs.items() if isinstance(each.energy, NotMeasured)]
    yield from not_measured(lacking, "Energy of ")


def _joules(energy: Energy) -> tuple[str, ...]:
    net = energy.net_joules_per_inference
    return (
        short(energy.joules_per_inference * 1e3),
        f"{net * 1e3:.3g}",
        short(energy.mean_watts),
        short(energy.idle_watts),
        energy.source,
    )
