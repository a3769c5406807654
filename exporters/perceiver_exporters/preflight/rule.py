"""The form of a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perceiver_exporters.preflight.report import Finding, Verdict
from perceiver_exporters.preflight.subject import Subject

Problem = tuple[Verdict, str, str]
"""Verdict, component (empty: the bundle), what was found."""


@dataclass(frozen=True)
class Rule:
    """An id that stays, what it looks for, and one remedy. `find` yields problems and changes nothing."""

    id: str
    title: str
    remedy: str
    find: Callable[[Subject], Iterator[Problem]]

    def findings(self, subject: Subject) -> Iterator[Finding]:
        """The problems as findings."""
        for verdict, component, message in self.find(subject):
            yield Finding(self.id, verdict, component, message, self.remedy)
