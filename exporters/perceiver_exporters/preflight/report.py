"""Findings and report of a preflight."""

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
    """Estimated memory of building and running engines, in bytes.

    Attributes:
        weights: Weights of all engines.
        scratch: Scratch memory of the engine that needs most.
        workspace: Minimum limit of the builder's workspace: an engine with larger scratch memory fails to build.
        build_peak: Peak while building.
        run_peak: Peak while running.
    """

    weights: int
    scratch: int
    workspace: int
    build_peak: int
    run_peak: int


@dataclass(frozen=True)
class PreflightReport:
    """Findings for a bundle and a target, the memory estimate, and the ids of the checks that were run."""

    target: str
    findings: tuple[PreflightFinding, ...]
    memory: EngineMemoryEstimate
    checks: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The most severe verdict of all findings, `ok` without any."""
        return max((finding.verdict for finding in self.findings), key=_ORDER.index, default="ok")
