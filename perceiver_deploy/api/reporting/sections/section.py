"""What a section is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from perceiver_deploy.api.reporting.charts.picture import Picture
from perceiver_deploy.api.reporting.data import BundleReport
from perceiver_deploy.api.reporting.tables import Table
from perceiver_runtime.benchmark.report import NotMeasured

T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """A sentence; `missing` where it says why something was not measured."""

    text: str
    missing: bool = False


@dataclass(frozen=True)
class Folded:
    """A table that is shown when it is opened."""

    title: str
    table: Table


Block = Text | Table | Picture | Folded


@dataclass(frozen=True)
class Section:
    """A heading, a sentence on what is shown, blocks below it, and the command that repeats it (empty: none)."""

    key: str
    heading: str
    note: str
    blocks: tuple[Block, ...]
    command: str = ""


def not_measured(reasons: Sequence[tuple[str, NotMeasured]], what: str = "") -> Iterator[Text]:
    """A sentence for each reason, with the names of those that it holds for."""
    names: dict[str, list[str]] = {}
    for name, each in reasons:
        names.setdefault(each.reason, []).append(name)
    for reason, held in names.items():
        yield Text(f"{what}{', '.join(dict.fromkeys(held))}: not measured: {reason}", missing=True)


def split(pairs: Sequence[tuple[BundleReport, T | NotMeasured]]) -> tuple[list[tuple[BundleReport, T]], list[Text]]:
    """What was measured, by bundle, and sentences for what was not."""
    found = [(bundle, each) for bundle, each in pairs if not isinstance(each, NotMeasured)]
    lacking = [(bundle.name, each) for bundle, each in pairs if isinstance(each, NotMeasured)]
    return found, list(not_measured(lacking))
