"""Verify on the device that a bundle computes the same function as its reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.conditions import Conditions, conditions_of
from perceiver_runtime.errors import BundleError, CheckError
from perceiver_runtime.execution.choice import RunsOn
from perceiver_runtime.execution.session import Session, open_session
from perceiver_runtime.golden import GoldenSample, load_golden
from perceiver_runtime.manifest import ComponentEntry, Manifest
from perceiver_runtime.measure.compare import Bound, Mode, ParityReport, compare
from perceiver_runtime.measure.spread import spread_of
from perceiver_runtime.measure.tolerances import check_spread, check_tolerance
from perceiver_runtime.progress import track
from perceiver_runtime.tensors import Array

PIPELINE = "pipeline"
Key = tuple[str, str]
"""A component and one of its outputs, or PIPELINE and an output or encoded value of the session."""


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
        opened.bundle.check_whole()
        samples, conditions = load_golden(opened.bundle), conditions_of(opened)
        bounds = golden_bounds(opened.manifest, samples)
        reports = _worst(
            r for sample in track(samples, "golden samples") for r in verify_sample(opened, sample, bounds)
        )
        return VerifyReport(reports, len(samples), golden_origin(opened.manifest), opened.runs_on, conditions)


def require_parity(session: Session) -> None:
    """Raise CheckError unless a session answers the golden samples within the tolerances. Raises what `verify` does."""
    if failed := [report for report in verify(session).reports if not report.passed]:
        worst = max(failed, key=_badness)
        raise CheckError(
            f"self-test: {worst.component}: {worst.tensor}: expected an error of at most {worst.decisive[1]:.3g}, got "
            f"{worst.decisive[0]:.3g} ({worst.nonfinite} values not finite; {len(failed)} checks failed): weights or "
            "device compute something else than the reference; open it again, or build its engines again"
        )


def component_failure(
    bundle: Bundle, entry: ComponentEntry, run: Callable[[Mapping[str, Array]], Mapping[str, Array]]
) -> str:
    """Compare one component, run alone on reference inputs, with the golden samples.

    Args:
        bundle: The bundle.
        entry: The component.
        run: Runs it.

    Returns:
        The first tensor beyond its tolerance, with its error; nothing if all pass.

    Raises:
        BundleError: The bundle has no golden samples, or a tensor no tolerance.
    """
    samples = load_golden(bundle)
    bounds = golden_bounds(bundle.manifest, samples)
    for sample in samples:
        if (call := sample.components.get(entry.name)) is None:
            continue
        for report in _compare(bounds, entry.name, "teacher-forced", call.outputs, run(call.inputs)):
            if not report.passed:
                return f"{report.tensor}: error {report.decisive[0]:.2g}, tolerance {report.decisive[1]:.2g}"
    return ""


def golden_bounds(manifest: Manifest, samples: Sequence[GoldenSample]) -> dict[Key, Bound]:
    """Largest allowed error of each tensor that the samples compare.

    Raises BundleError if an output of a component or a value of the session is in no sample or has no tolerance, or if
    a tolerance does not follow from its derivation.
    """
    given = {(t.component, t.tensor): t for t in manifest.tolerances}
    if len(given) != len(manifest.tolerances):
        raise BundleError("manifest: more than one tolerance for a tensor; export again")
    bounds = {}
    for component, tensor in _required(manifest):
        arrays = golden_arrays(samples, component, tensor)
        if not any(array.size for array in arrays):
            raise BundleError(f"golden samples: nothing to compare {tensor} of {component} with; export again")
        if (tolerance := given.get((component, tensor))) is None:
            raise BundleError(f"manifest: no tolerance for {tensor} of {component}; export again")
        check_tolerance(tolerance, manifest)
        spread = spread_of(arrays)
        check_spread(tolerance, manifest, spread)
        bounds[component, tensor] = Bound(tolerance.rel_l2, spread.rms, tolerance.centred)
    return bounds


def golden_origin(manifest: Manifest) -> str:
    """Where the golden inputs came from, as text."""
    return manifest.golden_origin or "of an origin that was not recorded"


def golden_arrays(samples: Sequence[GoldenSample], component: str, tensor: str) -> list[Array]:
    """One tensor from all samples that contain it."""
    sides = (s.values if component == PIPELINE else _outputs(s, component) for s in samples)
    return [side[tensor] for side in sides if tensor in side]


def verify_sample(session: Session, sample: GoldenSample, bounds: Mapping[Key, Bound]) -> Iterator[ParityReport]:
    """Reports of one golden sample: each component, then the pipeline."""
    for name, call in sample.components.items():
        got = session.run_component(name, call.inputs)
        yield from _compare(bounds, name, "teacher-forced", call.outputs, got)
    yield from _compare(bounds, PIPELINE, "chained", sample.values, _chained(session, sample))


def _required(manifest: Manifest) -> list[Key]:
    """All outputs of components and all values of the session."""
    outputs = [(component.name, spec.name) for component in manifest.components for spec in component.outputs]
    return [*outputs, *((PIPELINE, name) for name in manifest.pipeline.shown)]


def _outputs(sample: GoldenSample, component: str) -> Mapping[str, Array]:
    call = sample.components.get(component)
    return call.outputs if call is not None else {}


def _chained(session: Session, sample: GoldenSample) -> dict[str, Array]:
    """All values that a session returns: outputs, and results of the encode stage."""
    encoded = session.encode(sample.feeds)
    return {**encoded, **session.run(sample.feeds)}


def _compare(
    bounds: Mapping[Key, Bound], component: str, mode: Mode, reference: Mapping[str, Array], got: Mapping[str, Array]
) -> Iterator[ParityReport]:
    for tensor, array in reference.items():
        if tensor not in got or (component, tensor) not in bounds:
            raise BundleError(f"golden sample: {component} gives no {tensor}, only {', '.join(got)}; export again")
        bound = bounds[component, tensor]
        yield compare(array, got[tensor], component=component, tensor=tensor, mode=mode, bound=bound)


def _worst(reports: Iterable[ParityReport]) -> tuple[ParityReport, ...]:
    worst: dict[tuple[str, str, Mode], ParityReport] = {}
    for report in reports:
        key = report.component, report.tensor, report.mode
        if key not in worst or _badness(report) > _badness(worst[key]):
            worst[key] = report
    return tuple(worst.values())


def _badness(report: ParityReport) -> tuple[bool, float]:
    return not report.passed, report.excess
