"""`verify` on the workstation: golden samples and the graphs' claims; what failed is written out, to be replayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiver_exporters.diagnose.bisection import Breach, check_claims
from perceiver_exporters.diagnose.bisection.replay import Replay, write_replay
from perceiver_exporters.precision.proof.kernels import INSPECTABLE
from perceiver_exporters.precision.widen import runnable_bundle
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime import Session, load_bundle, open_session
from perceiver_runtime import verify as compare_golden
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.execution.choice import RunsOn
from perceiver_runtime.golden import GoldenSample, load_golden
from perceiver_runtime.measure.compare import Bound, ParityReport
from perceiver_runtime.measure.parity import PIPELINE, Key, golden_bounds, verify_sample
from perceiver_runtime.measure.verify import VerifyReport
from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class Verification:
    """Verdict on a bundle: its numbers (`parity`), and where graphs are not what the manifest claims (`breaches`)."""

    parity: VerifyReport
    breaches: tuple[Breach, ...]
    backend: str

    @property
    def passed(self) -> bool:
        """Whether every tensor is within its tolerance, and every graph is what the manifest claims."""
        return self.parity.passed and not self.breaches

    @property
    def reports(self) -> tuple[ParityReport, ...]:
        """One report for each compared tensor."""
        return self.parity.reports

    @property
    def runs_on(self) -> RunsOn | None:
        """Backend and threads of the session that was compared."""
        return self.parity.runs_on


@dataclass(frozen=True)
class Failure:
    """A component, or the pipeline, that failed; `directory` is for `perceiver-export replay`."""

    component: str
    directory: str
    command: str


def backend_for(target: str) -> str:
    """The backend that computes as a target does: a GPU's arithmetic is emulated by exact kernels."""
    return "auto" if target in INSPECTABLE or target not in TARGETS else "onnxruntime-exact"


def verify(
    bundle: Session | Bundle | str | Path, backend: str | None = None, threads: int | None = None
) -> Verification:
    """Compare a bundle with its golden samples, and its graphs with what the manifest claims of them.

    Args:
        bundle: A bundle, its directory, or an open session, which then runs as it is.
        backend: What runs the bundle; None takes the backend that computes as the bundle's target does.
        threads: CPU threads; None leaves the choice to the session.

    Returns:
        The verdict, the same as that of `perceiver-export verify`.

    Raises:
        BundleError: The bundle is damaged, has no golden samples, or no tolerance for a tensor.
        UnavailableError: The backend is not on this machine.
        UsageError: There is no such backend, or `threads` is out of range.
    """
    if isinstance(bundle, Session):
        return Verification(compare_golden(bundle), check_claims(bundle.bundle), bundle.backend)
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    chosen = backend or backend_for(loaded.manifest.target)
    with runnable_bundle(loaded, chosen) as runnable:
        return Verification(compare_golden(runnable, chosen, threads), check_claims(loaded), chosen)


def write_failures(path: str | Path, verification: Verification, directory: Path) -> tuple[Failure, ...]:
    """For each component that failed, write the inputs of its first failing golden sample under `directory`."""
    failed = dict.fromkeys(report.component for report in verification.parity.reports if not report.passed)
    bundle = load_bundle(path)
    with (
        runnable_bundle(bundle, verification.backend) as runnable,
        open_session(runnable, verification.backend, check_finite=False) as session,
    ):
        samples = load_golden(bundle)
        bounds = golden_bounds(bundle.manifest, samples)
        reports = [tuple(verify_sample(session, sample, bounds)) for sample in samples]
        failing = {name: next(i for i, each in enumerate(reports) if _fails(each, name)) for name in failed}
        return tuple(
            _write(bundle, samples[i], bounds, name, verification.backend, directory / name)
            for name, i in failing.items()
        )


def _write(
    bundle: Bundle, sample: GoldenSample, bounds: Mapping[Key, Bound], component: str, backend: str, directory: Path
) -> Failure:
    """The session may run a copy that is gone when it is closed: a replay is of the bundle itself."""
    inputs, expected = _arrays(sample, component)
    own = {tensor: bound for (name, tensor), bound in bounds.items() if name == component}
    replay = Replay(str(bundle.path.resolve()), component, backend, own)
    return Failure(component, str(directory), write_replay(directory, replay, inputs, expected))


def _fails(reports: Iterable[ParityReport], component: str) -> bool:
    return any(report.component == component and not report.passed for report in reports)


def _arrays(sample: GoldenSample, component: str) -> tuple[dict[str, Array], dict[str, Array]]:
    if component == PIPELINE:
        return dict(sample.feeds), dict(sample.values)
    call = sample.components[component]
    return dict(call.inputs), dict(call.outputs)
