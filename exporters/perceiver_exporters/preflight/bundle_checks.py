"""Preflight checks of profiles, and of engines that the bundle already has for the target."""

from __future__ import annotations

from collections.abc import Iterator

from perceiver_exporters.preflight.report import Problem
from perceiver_exporters.preflight.subject import Subject
from perceiver_runtime.tensorrt.dialect import version_of


def missing_profile(subject: Subject) -> Iterator[Problem]:
    """Dynamic inputs in a bundle without any profile."""
    symbols = {s for entry in subject.manifest.components for spec in entry.inputs for s in spec.symbols}
    if symbols and not subject.manifest.profiles:
        yield "blocked", "", f"no profile, but {', '.join(sorted(symbols))} are dynamic"


def axes_without_range(subject: Subject) -> Iterator[Problem]:
    """Dynamic axes that the profiles do not bound."""
    if not subject.manifest.profiles:
        return  # reported by `missing_profile`
    for entry in subject.manifest.components:
        symbols = {s for spec in entry.inputs for s in spec.symbols}
        known = [symbols & set(profile.dimensions) for profile in subject.profiles[entry.name]]
        unbounded = symbols - set[str].intersection(*known) if known else symbols
        if unbounded:
            yield "blocked", entry.name, f"no profile bounds the dynamic axis {', '.join(sorted(unbounded))}"


def compute_capability(subject: Subject) -> Iterator[Problem]:
    """Engines of this target that were built for other GPUs."""
    wanted = set(subject.engines.compute_capabilities)
    for sidecar in subject.sidecars:
        if not wanted & set(sidecar.compute_capabilities):
            built = ", ".join(sidecar.compute_capabilities) or "an unknown GPU"
            yield "blocked", sidecar.component, f"engine built for {built}; the target has {', '.join(sorted(wanted))}"


def tensorrt_major(subject: Subject) -> Iterator[Problem]:
    """Engines of this target that were built by another major version of TensorRT, or by another product."""
    for sidecar in subject.sidecars:
        major = version_of(sidecar.tensorrt)[0]
        if sidecar.module != subject.engines.module or (
            major != subject.dialect.major and not sidecar.version_compatible
        ):
            yield (
                "blocked",
                sidecar.component,
                f"engine of {sidecar.module} {sidecar.tensorrt}; the target runs {subject.dialect.name}",
            )
