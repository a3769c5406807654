"""Run the preflight checks on a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.preflight.checks import CHECKS
from perceiver_exporters.preflight.memory import estimate
from perceiver_exporters.preflight.report import PreflightReport
from perceiver_exporters.preflight.subject import Subject, read_subject
from perceiver_exporters.targets.target import TARGETS, EngineTarget, Target
from perceiver_runtime.errors import UsageError


def check(bundle: str | Path, target: str, memory: int | None = None) -> PreflightReport:
    """Check a bundle against a target with engines.

    Args:
        bundle: Directory of the bundle.
        target: Name of the target.
        memory: Bytes of memory of the board; None for all boards of the target.

    Returns:
        The findings, and an estimate of the memory for building and running.

    Raises:
        UsageError: The target is unknown or has no engines.
        BundleError: The bundle is damaged.
    """
    place, engines = engine_target(TARGETS, target)
    with quiet():
        return examine(read_subject(Path(bundle), place, engines, memory))


def examine(subject: Subject) -> PreflightReport:
    """Run all checks on a subject."""
    findings = tuple(finding for each in CHECKS for finding in each.findings(subject))
    return PreflightReport(subject.target.name, findings, estimate(subject), tuple(each.id for each in CHECKS))


def engine_target(targets: Mapping[str, Target], name: str) -> tuple[Target, EngineTarget]:
    """The target of that name and its engines. Raises UsageError if it is unknown or has none."""
    with_engines = [t.name for t in targets.values() if t.engines is not None]
    if name not in targets:
        raise UsageError(f"target (--target): expected one of {', '.join(with_engines)}, got {name!r}")
    engines = targets[name].engines
    if engines is None:
        raise UsageError(
            f"target {name} runs ONNX as it is; engines are for {', '.join(with_engines)}: verify the bundle instead"
        )
    return targets[name], engines
