"""Prove on the device that a bundle still computes the reference's function."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.compare import Mode, ParityReport, compare
from perceiver_runtime.errors import BundleError
from perceiver_runtime.golden import GoldenSample, load_golden
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.session import Session, open_session
from perceiver_runtime.tensors import Array

PIPELINE = "pipeline"


@dataclass(frozen=True)
class VerifyReport:
    """One report for each tensor and mode: the worst over all golden samples."""

    reports: tuple[ParityReport, ...]
    samples: int

    @property
    def passed(self) -> bool:
        """Whether every tensor is within its tolerance."""
        return all(report.passed for report in self.reports)


def verify(session: Session | Bundle | str | Path, backend: str = "auto", threads: int | None = None) -> VerifyReport:
    """Run the golden samples, each component alone on the reference's inputs and the pipeline end to end.

    A bundle or path is opened with `backend` and `threads` first. Raises BundleError if the bundle has no golden
    samples, or no tolerance for one of their tensors.
    """
    with ExitStack() as stack:
        opened = (
            session if isinstance(session, Session) else stack.enter_context(open_session(session, backend, threads))
        )
        samples = load_golden(opened.bundle)
        return VerifyReport(_worst(r for sample in samples for r in verify_sample(opened, sample)), len(samples))


def verify_sample(session: Session, sample: GoldenSample) -> Iterator[ParityReport]:
    """The reports of one golden sample, component by component, then those of the pipeline."""
    manifest = session.manifest
    for name, application in sample.components.items():
        got = session.run_component(name, application.inputs)
        yield from _compare(manifest, name, "teacher-forced", application.outputs, got)
    yield from _compare(manifest, PIPELINE, "chained", sample.values, _chained(session, sample))


def _chained(session: Session, sample: GoldenSample) -> dict[str, Array]:
    """All values that a session gives out: outputs, and what encoding hands to decoding."""
    encoded = session.encode(sample.feeds)
    return {**encoded, **session.run(sample.feeds)}


def _compare(
    manifest: Manifest, component: str, mode: Mode, reference: Mapping[str, Array], got: Mapping[str, Array]
) -> Iterator[ParityReport]:
    bounds = {t.tensor: t.rel_l2 for t in manifest.tolerances if t.component == component}
    for tensor, array in reference.items():
        if tensor not in got:
            raise BundleError(f"golden sample: {component} gives no {tensor}, only {', '.join(got)}; export again")
        if tensor not in bounds:
            raise BundleError(f"manifest: no tolerance for {tensor} of {component}; export again")
        yield compare(array, got[tensor], component=component, tensor=tensor, mode=mode, tolerance=bounds[tensor])


def _worst(reports: Iterable[ParityReport]) -> tuple[ParityReport, ...]:
    worst: dict[tuple[str, str, Mode], ParityReport] = {}
    for report in reports:
        key = report.component, report.tensor, report.mode
        if key not in worst or _badness(report) > _badness(worst[key]):
            worst[key] = report
    return tuple(worst.values())


def _badness(report: ParityReport) -> tuple[bool, float]:
    return not report.passed, math.inf if report.nonfinite else report.rel_l2
