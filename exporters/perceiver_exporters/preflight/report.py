"""What a preflight found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "risky", "blocked"]
Problem = tuple[Verdict, str, str]
"""Verdict, component (empty: the whole bundle), message."""
_ORDER: tuple[Verdict, ...] = ("ok", "risky", "blocked")


@dataclass(frozen=True)
class PreflightFinding:
    """A problem that one check found. `component` is empty for a problem of the whole bundle."""

    check: str
    verdict: Verdict
    component: str
    message: str
    remedy: str


@dataclass(frozen=True)
class EngineMemoryEstimate:
    """Estimated bytes: weights of all engines, scratch of the largest, and the peaks of building and running.

    `workspace` is what the builder must be allowed: an engine whose scratch is larger fails to build.
    """

    weights: int
    scratch: int
    workspace: int
    build_peak: int
    run_peak: int


@dataclass(frozen=True)
class PreflightReport:
    """Everything that stands between a bundle and its target, found before any build starts."""

    target: str
    findings: tuple[PreflightFinding, ...]
    memory: EngineMemoryEstimate
    checks: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of all findings."""
        return max((finding.verdict for finding in self.findings), key=_ORDER.index, default="ok")
