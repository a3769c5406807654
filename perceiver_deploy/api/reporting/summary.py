"""The first table of a report: how fast, how accurate, on which device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from perceiver_deploy.api.bench import TORCH, BenchmarkReport
from perceiver_deploy.api.evaluate import EvaluationReport
from perceiver_deploy.api.reporting.data import BundleReport, Damaged, ModelReport, Run, SummaryRow
from perceiver_deploy.api.reporting.tables import (
    NONE,
    TIMES,
    Cell,
    Table,
    megabytes,
    missing,
    short,
    signed,
    table,
    verdict,
)
from perceiver_runtime.benchmark.report import LatencyReport, NotMeasured
from perceiver_runtime.benchmark.statistics import Distribution

EAGER = "PyTorch eager"
DAMAGED = "can't be opened"
NO_PEER = "the reference was left out"
NOT_IN_FILE = "not in the file (--bench)"
SHARED_PROCESS = "shares its process with what measures it"
NAMES = ("model:<", "device:<", "bundle:<", "precision:<", "backend:<")
NUMBERS = (
    "batch",
    "p50 ms",
    "p95 ms",
    "rows/s",
    f"{TIMES} eager",
    "accuracy",
    "parity:<",
    "disk MB",
    "peak MB",
    "mJ/row",
)
"""The fifth is how many times as fast as PyTorch eager."""


def summary_rows(models: Iterable[ModelReport], damaged: Iterable[Damaged], device: str) -> Iterator[SummaryRow]:
    """For each model its reference, then its bundles on each backend; bundles that can't be opened last."""
    for model in models:
        yield from _reference(model, device)
        for bundle in model.bundles:
            yield from (_row(model, bundle, run, device) for run in bundle.runs)
    for each in damaged:
        yield SummaryRow("", each.name, "", "", None, "", 0, parity="damaged", reasons={"p50_ms": each.reason})


def _reference(model: ModelReport, device: str) -> Iterator[SummaryRow]:
    """PyTorch eager at each batch size, as the first bundle was measured beside it."""
    seen: set[int] = set()
    for bundle, run in ((b, run) for b in model.bundles for run in b.runs):
        against = run.against
        if isinstance(against, NotMeasured) or TORCH not in against.peers or run.batch in seen:
            continue
        seen.add(run.batch)
        yield SummaryRow(
            model=model.source.name,
            bundle="",
            precision="fp32",
            backend=EAGER,
            threads=against.threads,
            device=device,
            batch=run.batch,
            **_score(bundle.accuracy, deployed=False),
            **_times(against.peers[TORCH], run.batch),
            reasons=_reasons(bundle.accuracy, peak_memory=SHARED_PROCESS, energy_joules=SHARED_PROCESS),
        )


def _row(model: ModelReport, bundle: BundleReport, run: Run, device: str) -> SummaryRow:
    accuracy = _on_backend(bundle, run)
    timed, times = _timed(run)
    return SummaryRow(
        model=model.source.name,
        bundle=bundle.name,
        precision=bundle.precision,
        backend=run.backend if isinstance(timed, NotMeasured) else timed.backend,
        threads=None if isinstance(timed, NotMeasured) else timed.threads,
        device=device,
        batch=run.batch,
        size=bundle.size,
        parity=_parity(bundle, run),
        **_score(accuracy, deployed=True),
        **times,
        **_speedup(run),
        **_resources(run.latency),
        reasons=_reasons(
            accuracy,
            p50_ms=timed,
            speedup=run.against if isinstance(run.against, NotMeasured) or run.against.peers else NO_PEER,
            parity=run.parity,
            **_lacking(run.latency),
        ),
    )


def device_rows(reports: Iterable[LatencyReport]) -> Iterator[SummaryRow]:
    """What was measured on a device, of which the file tells no more than latency, memory and energy."""
    for each in reports:
        conditions = each.conditions
        yield SummaryRow(
            model=conditions.model,
            bundle=conditions.bundle,
            precision=conditions.precision,
            backend=each.backend,
            threads=each.threads,
            device=", ".join((conditions.machine, *(c for c in conditions.instructions if "capability" in c))),
            batch=each.batch,
            **_times(each.total, each.batch),
            **_resources(each),
            reasons={**dict.fromkeys(("accuracy", "speedup", "parity", "size"), NOT_IN_FILE), **_lacking(each)},
        )


def _timed(run: Run) -> tuple[BenchmarkReport | LatencyReport | NotMeasured, dict[str, Any]]:
    """What timed whole runs, beside the reference if that was possible, and its times."""
    latency, against = run.latency, run.against
    if not isinstance(against, NotMeasured):
        return against, _times(against.session, against.batch)
    return latency, {} if isinstance(latency, NotMeasured) else _times(latency.total, latency.batch)


def _resources(latency: LatencyReport | NotMeasured) -> dict[str, Any]:
    """Peak memory, and energy where a rail or a counter was read."""
    if isinstance(latency, NotMeasured):
        return {}
    energy = latency.energy
    joules = None if isinstance(energy, NotMeasured) else energy.joules_per_inference
    return {"peak_memory": latency.memory.peak_rss, "energy_joules": joules}


def _lacking(latency: LatencyReport | NotMeasured) -> dict[str, str]:
    if isinstance(latency, NotMeasured):
        return {"peak_memory": latency.reason, "energy_joules": latency.reason}
    memory = {"peak_memory": "this system does not tell"} if latency.memory.peak_rss is None else {}
    return memory | ({"energy_joules": latency.energy.reason} if isinstance(latency.energy, NotMeasured) else {})


def _parity(bundle: BundleReport, run: Run) -> str:
    if bundle.breaches:
        return "failed"
    return "" if isinstance(run.parity, NotMeasured) else "passed" if run.parity.passed else "failed"


def _on_backend(bundle: BundleReport, run: Run) -> tuple[EvaluationReport[Any], ...] | NotMeasured:
    """The bundle's scores, if they were measured on this backend."""
    accuracy = bundle.accuracy
    if isinstance(accuracy, NotMeasured) or accuracy[0].runs_on is None:
        return accuracy
    scored, own = (
        accuracy[0].runs_on.backend,
        run.backend if isinstance(run.latency, NotMeasured) else run.latency.backend,
    )
    return accuracy if own in (scored, "auto") else NotMeasured(f"was scored on {scored}")


def _score(accuracy: tuple[EvaluationReport[Any], ...] | NotMeasured, *, deployed: bool) -> dict[str, Any]:
    if isinstance(accuracy, NotMeasured):
        return {}
    first = accuracy[0]
    name = first.share or next(iter(first.difference), "")
    if not name:
        return {}
    metrics = first.deployed if deployed else first.reference
    difference = first.difference.get(name) if deployed else None
    value = metrics.values[name] if hasattr(metrics, "values") else getattr(metrics, name)
    return {
        "accuracy": value,
        "accuracy_name": name if len(accuracy) == 1 else f"{name} of {first.output}",
        "accuracy_difference": difference,
        "share": first.share == name,
    }


def _times(times: Distribution, batch: int) -> dict[str, Any]:
    low, high = times.interval if times.interval is not None and times.interval[0] > 0 else (None, None)
    return {
        "p50_ms": times.p50,
        "p50_low_ms": low,
        "p50_high_ms": high,
        "p95_ms": times.p95,
        "throughput": batch / times.mean * 1e3,
    }


def _speedup(run: Run) -> dict[str, Any]:
    if isinstance(run.against, NotMeasured) or (ratio := run.against.speedups.get(TORCH)) is None:
        return {}
    return {"speedup": ratio.median, "speedup_low": ratio.low, "speedup_high": ratio.high}


def _reasons(accuracy: object, **fields: object) -> dict[str, str]:
    given = {"accuracy": accuracy, **fields}
    texts = {name: each.reason if isinstance(each, NotMeasured) else each for name, each in given.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def summary_table(rows: Iterable[SummaryRow]) -> Table:
    """The rows under headings of their model and device."""
    found: dict[str, list[SummaryRow]] = {}
    for row in rows:
        found.setdefault(" \u00b7 ".join(filter(None, (row.model, row.device))) or DAMAGED, []).append(row)
    made = ((heading, *((_name(row), *_numbers(row)) for row in each)) for heading, each in found.items())
    return table(("bundle:<", *NUMBERS), (row for group in made for row in group))


def plain_table(rows: Iterable[SummaryRow]) -> Table:
    """The rows with columns for all names, as for Markdown."""
    return table((*NAMES, *NUMBERS), ((*_names(row), *_numbers(row)) for row in rows))


def _names(row: SummaryRow) -> tuple[str, ...]:
    backend = ", ".join(filter(None, (row.backend, _threads(row.threads))))
    return tuple(name or NONE for name in (row.model, row.device, row.bundle or "reference", row.precision, backend))


def _name(row: SummaryRow) -> Cell:
    about = ", ".join(filter(None, (row.precision, row.backend, _threads(row.threads))))
    return Cell(row.bundle or "reference", about)


def _numbers(row: SummaryRow) -> tuple[Cell | str, ...]:
    is_reference = row.backend == EAGER
    nothing = Cell(NONE)
    return (
        f"{row.batch:,}" if row.batch else NONE,
        _interval(row.p50_ms, row.p50_low_ms, row.p50_high_ms),
        missing() if row.p95_ms is None else short(row.p95_ms),
        missing() if row.throughput is None else short(row.throughput),
        Cell("1") if is_reference else _interval(row.speedup, row.speedup_low, row.speedup_high),
        _score_cell(row),
        nothing if is_reference else verdict(row.parity),
        nothing if is_reference else missing() if row.size is None else megabytes(row.size),
        missing() if row.peak_memory is None else megabytes(row.peak_memory),
        missing() if row.energy_joules is None else short(row.energy_joules * 1e3),
    )


def _threads(threads: int | None) -> str:
    return "" if threads is None else f"{threads} thread{'s' if threads > 1 else ''}"


def _score_cell(row: SummaryRow) -> Cell:
    if row.accuracy is None:
        return missing()
    if row.share:
        sub = "" if row.accuracy_difference is None else f"{signed(100 * row.accuracy_difference, 2)} points"
        return Cell(f"{row.accuracy:.2%}", sub)
    sub = row.accuracy_name if row.accuracy_difference is None else f"{signed(row.accuracy_difference, 4)}"
    return Cell(f"{row.accuracy:.4f}", sub)


def _interval(value: float | None, low: float | None, high: float | None) -> Cell:
    if value is None:
        return missing()
    return Cell(short(value), "" if low is None or high is None else f"{short(low)} to {short(high)}")
