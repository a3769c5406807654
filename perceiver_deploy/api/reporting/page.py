"""The page: one HTML file that needs nothing else, made from the report's data alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from perceiver_deploy.api.reporting.charts.picture import Picture
from perceiver_deploy.api.reporting.data import ModelReport, ReportData, SummaryRow
from perceiver_deploy.api.reporting.sections.accuracy import accuracy
from perceiver_deploy.api.reporting.sections.card import card
from perceiver_deploy.api.reporting.sections.components import components
from perceiver_deploy.api.reporting.sections.latency import latency
from perceiver_deploy.api.reporting.sections.parity import growth, parity
from perceiver_deploy.api.reporting.sections.roofline import forecast, roofline
from perceiver_deploy.api.reporting.sections.section import Folded, Section, Text
from perceiver_deploy.api.reporting.sections.size import size
from perceiver_deploy.api.reporting.summary import EAGER, summary_table
from perceiver_deploy.api.reporting.tables import TIMES, Table, short, signed
from perceiver_runtime.benchmark.report import NotMeasured
from perceiver_runtime.escapes import printable
from perceiver_runtime.format.outputs import replacing

TEMPLATE = "page.html.j2"
KINDS = {Text: "text", Table: "table", Picture: "picture", Folded: "folded"}
MAX_LEADS = 3
"""Models beyond which the first table alone has their figures."""


@dataclass(frozen=True)
class Chapter:
    """One model on the page."""

    key: str
    name: str
    about: str
    sections: tuple[Section, ...]


def write_page(data: ReportData, path: Path) -> None:
    """Write the page, whole or not at all. Raises OSError (the disk)."""
    with replacing(path) as partial:
        partial.write_text(page(data), encoding="utf-8")


def page(data: ReportData) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("perceiver_deploy.api.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    return environment.get_template(TEMPLATE).render(
        data=data,
        title=", ".join(dict.fromkeys(m.source.name for m in data.models)) or "no bundle that opens",
        leads={m.source.name: _lead(m, data) for m in data.models} if len(data.models) <= MAX_LEADS else {},
        summary=summary_table(data.summary),
        about=_about(data),
        disturbed=_disturbed(data),
        chapters=[_chapter(f"m{i}", model) for i, model in enumerate(data.models)],
        kind=lambda block: KINDS[type(block)],
    )


def _printable(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


def _chapter(key: str, model: ModelReport) -> Chapter:
    sections = (
        card(model),
        components(model, key),
        parity(model),
        growth(model, key),
        accuracy(model, key),
        latency(model, key),
        roofline(model, key),
        size(model, key),
        forecast(model),
    )
    count = len(model.bundles)
    return Chapter(key, model.source.name, f"{count} bundle{'s' if count > 1 else ''}", sections)


def _about(data: ReportData) -> str:
    """What was measured, in a line."""
    bundles = sum(len(model.bundles) for model in data.models) + len(data.damaged)
    devices = dict.fromkeys(row.device for row in data.summary if row.device)
    return ", ".join((f"{bundles} bundle{'s' if bundles > 1 else ''}", *devices))


def _disturbed(data: ReportData) -> str:
    """A warning if other programs were busy while times were measured here; empty if not, or if it is not known."""
    runs = [run for model in data.models for bundle in model.bundles for run in bundle.runs]
    timed = [each for run in runs for each in (run.against, run.latency) if not isinstance(each, NotMeasured)]
    loads = [each.others for each in timed if each.others is not None and each.others.disturbs]
    worst = max(loads, key=lambda load: load.cores, default=None)
    return "" if worst is None else f"{worst} while times were measured: they are in doubt; repeat on an idle machine."


def _lead(model: ModelReport, data: ReportData) -> tuple[tuple[str, str, str], ...]:
    """What matters most of a model, as label, value and remark."""
    rows = [r for r in data.summary if r.model == model.source.name and r.backend != EAGER]
    return tuple(_leading(rows))


def _leading(rows: list[SummaryRow]) -> Iterator[tuple[str, str, str]]:
    timed = [row for row in rows if row.p50_ms is not None and row.parity != "failed"]
    if not timed:
        return
    best: Any = min(timed, key=lambda row: row.p50_ms or 0)
    yield "Fastest", f"{short(best.p50_ms)} ms", f"{best.bundle} on {best.backend}, batch {best.batch}"
    if best.speedup is not None:
        interval = f"{short(best.speedup_low)} to {short(best.speedup_high)}"
        yield "Against PyTorch eager", f"{short(best.speedup)} {TIMES}", f"95% interval {interval}"
    if best.accuracy is not None and best.share:
        change = f"{signed(100 * best.accuracy_difference, 2)} points from the reference"
        yield best.accuracy_name.capitalize(), f"{best.accuracy:.2%}", change
    smallest = min((row for row in rows if row.size), key=lambda row: row.size or 0)
    yield "Smallest", f"{short((smallest.size or 0) / 1e6)} MB", f"{smallest.bundle} on disk"
    passed = sum(row.parity == "passed" for row in rows)
    yield "Parity", f"{passed} of {len(rows)}", "passed on the golden samples"
