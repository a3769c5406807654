"""Compare what a session computes with the golden samples of its bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import BundleError, CheckError
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


class Verifiable(Protocol):
    """A session, which compares itself when it is opened with `self_test`."""

    @property
    def bundle(self) -> Bundle:
        """The loaded bundle."""

    def run_component(self, name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one component."""

    def encode(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Values of the encode stage."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of the pipeline."""


def parity_reports(session: Verifiable) -> tuple[ParityReport, ...]:
    """One report for each tensor and mode, the worst over all golden samples. Raises what `verify` does."""
    session.bundle.check_whole()
    samples = load_golden(session.bundle)
    bounds = golden_bounds(session.bundle.manifest, samples)
    return _worst(r for sample in track(samples, "golden samples") for r in verify_sample(session, sample, bounds))


def require_parity(session: Verifiable) -> None:
    """Raise CheckError unless a session answers the golden samples within the tolerances. Raises what `verify` does."""
    if failed := [report for report in parity_reports(session) if not report.passed]:
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


def verify_sample(session: Verifiable, sample: GoldenSample, bounds: Mapping[Key, Bound]) -> Iterator[ParityReport]:
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


def _chained(session: Verifiable, sample: GoldenSample) -> dict[str, Array]:
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
