"""Verify on the device that a bundle computes the same function as its reference."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.conditions import Conditions, conditions_of
from perceiver_runtime.execution.choice import RunsOn
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.execution.session import Session
from perceiver_runtime.measure.compare import ParityReport
from perceiver_runtime.measure.parity import golden_origin, parity_reports


@dataclass(frozen=True)
class VerifyReport:
    """Verdict on a bundle.

    Attributes:
        reports: One report for each tensor and mode: the worst over all golden samples.
        samples: Number of golden samples.
        origin: Where their inputs came from.
        runs_on: Backend and threads of the session.
        conditions: What was compared, and where.
    """

    reports: tuple[ParityReport, ...]
    samples: int
    origin: str
    runs_on: RunsOn | None = None
    conditions: Conditions | None = None

    @property
    def passed(self) -> bool:
        """Whether something was compared, and every tensor is within its tolerance."""
        return bool(self.reports) and all(report.passed for report in self.reports)


def verify(session: Session | Bundle | str | Path, backend: str = "auto", threads: int | None = None) -> VerifyReport:
    """Run the golden samples, each component alone on reference inputs and the pipeline end to end.

    Args:
        session: An open session, a loaded bundle, or the directory of one.
        backend: Backend for a bundle that is opened here.
        threads: CPU threads for a bundle that is opened here.

    Returns:
        Distances from the reference, with a verdict.

    Raises:
        BundleError: The bundle has no golden samples, a tensor without a tolerance, or a tolerance that does not follow
            from its derivation.
        UsageError: The backend is unknown.
        UnavailableError: The backend is not available on this machine.
    """
    with ExitStack() as stack:
        opened = (
            session
            if isinstance(session, Session)
            else stack.enter_context(open_session(session, backend, threads, check_finite=False))
        )
        reports, manifest = parity_reports(opened), opened.manifest
        return VerifyReport(
            reports, len(manifest.golden), golden_origin(manifest), opened.runs_on, conditions_of(opened)
        )
