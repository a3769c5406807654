"""Measure what a report shows. What can't be measured is a reason, and the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from perceiver_deploy.api.bench import bench
from perceiver_deploy.api.evaluate import EvaluationReport, evaluate
from perceiver_deploy.api.growth import growth
from perceiver_deploy.api.inspect import Inspection, inspect
from perceiver_deploy.api.verify import Verification, verify
from perceiver_deploy.reporting.alone import measure_alone
from perceiver_deploy.reporting.data import BundleReport, Damaged, ModelReport, NotMeasured, Run
from perceiver_runtime.errors import CheckError, typed
from perceiver_runtime.measure.verify import golden_origin
from perceiver_runtime.progress import report as progress

LOGGER = logging.getLogger(__name__)
NO_REFERENCE = NotMeasured("the reference was left out (--no-reference)")
T = TypeVar("T")


@dataclass(frozen=True)
class ReportOptions:
    """What to measure.

    Attributes:
        backends: Backends that each bundle is measured on.
        batch: Rows per run.
        iterations: Measured runs of each, at least 2.
        warmup: Runs of each before the measured ones.
        threads: CPU threads; None leaves the choice to the session.
        reference: Model or checkpoint with the bundles' weights; None: their source.
        with_reference: Whether the reference is run: without it there are no accuracies, error curves and speed-ups.
        data: Labelled samples, as `evaluate` takes them; None: those of the export.
        samples: Number of samples of other data than the export's; None: all.
    """

    backends: tuple[str, ...] = ("auto",)
    batch: int = 1
    iterations: int = 50
    warmup: int = 5
    threads: int | None = None
    reference: str | None = None
    with_reference: bool = True
    data: str | None = None
    samples: int | None = None


@dataclass(frozen=True)
class _Given:
    """A bundle: its name in the report, where it is, and what it says of itself."""

    name: str
    path: Path
    inspection: Inspection


class Collector:
    """Measures bundles one after the other. `failures` and `damaged` say what was wrong with those so far."""

    def __init__(self, options: ReportOptions) -> None:
        self.options = options
        self.failures: list[str] = []
        self.damaged: list[Damaged] = []

    def models(self, bundles: Mapping[str, Path]) -> tuple[ModelReport, ...]:
        """The bundles by name, measured, under their models."""
        found: dict[str, list[_Given]] = {}
        for name, path in bundles.items():
            opened = self._section(name, path, partial(inspect, path, precision=True))
            if isinstance(opened, NotMeasured):
                self.damaged.append(Damaged(name, opened.not_measured))
                self.failures.append(f"{name} can't be opened: {opened.not_measured}")
            else:
                found.setdefault(opened.bundle.manifest.source.weights_sha256, []).append(_Given(name, path, opened))
        return tuple(self._model(each) for each in found.values())

    def _model(self, bundles: list[_Given]) -> ModelReport:
        first = bundles[0].inspection.bundle.manifest
        accuracies = self._accuracies(bundles)
        return ModelReport(
            source=first.source,
            parameters=sum(component.parameters for component in first.components),
            pipeline=first.pipeline,
            profiles=first.profiles,
            labels=first.labels,
            golden_origin=golden_origin(first),
            processing=first.processing,
            data=first.data,
            bundles=tuple(self._bundle(*pair) for pair in zip(bundles, accuracies, strict=True)),
            commands={},
        )

    def _bundle(self, given: _Given, accuracy: tuple[EvaluationReport[Any], ...] | NotMeasured) -> BundleReport:
        name, manifest = given.name, given.inspection.bundle.manifest
        verified = [self._verified(given, backend) for backend in self.options.backends]
        breaches = [str(b) for each in verified if not isinstance(each, NotMeasured) for b in each.breaches]
        self.failures += [f"{name}: {breach}" for breach in dict.fromkeys(breaches)]
        pairs = zip(self.options.backends, verified, strict=True)
        return BundleReport(
            name=name,
            precision=manifest.precision,
            target=manifest.target,
            opset=manifest.opset,
            components=manifest.components,
            files={path: entry.size for path, entry in manifest.files.items()},
            tools=manifest.tools,
            precisions=given.inspection.precision or (),
            breaches=tuple(dict.fromkeys(breaches)),
            runs=tuple(self._run(given, backend, each) for backend, each in pairs),
            growth=self._growth(given),
            accuracy=accuracy,
        )

    def _verified(self, given: _Given, backend: str) -> Verification | NotMeasured:
        progress(f"[{given.name}] verify")
        chosen = None if backend == "auto" else backend
        return self._section(given.name, given.path, lambda: verify(given.path, chosen, self.options.threads))

    def _run(self, given: _Given, backend: str, verified: Verification | NotMeasured) -> Run:
        options = self.options
        parity = verified if isinstance(verified, NotMeasured) else verified.parity
        if not isinstance(parity, NotMeasured) and not parity.passed:
            worst = max(parity.reports, key=lambda r: (not r.passed, r.excess))
            self.failures.append(
                f"{given.name}: parity failed: {worst.tensor} of {worst.component} has {worst.excess:.3g} times the "
                "error that its tolerance allows"
            )
        progress(f"[{given.name}] time")
        counts = {"batch": options.batch, "iterations": options.iterations, "warmup": options.warmup}
        against = (
            self._section(
                given.name,
                given.path,
                lambda: bench(
                    given.path, reference=options.reference, threads=options.threads, backend=backend, **counts
                ),
            )
            if options.with_reference
            else NO_REFERENCE
        )
        alone = self._section(
            given.name, given.path, lambda: measure_alone(given.path, backend, options.threads, **counts)
        )
        return Run(backend, parity, alone, against)

    def _growth(self, given: _Given) -> Any:
        if not self.options.with_reference:
            return NO_REFERENCE
        progress(f"[{given.name}] error growth")
        found = self._section(given.name, given.path, lambda: growth(given.path, reference=self.options.reference))
        return found if isinstance(found, NotMeasured) else found.growth

    def _accuracies(self, bundles: list[_Given]) -> list[tuple[EvaluationReport[Any], ...] | NotMeasured]:
        """Of all bundles in one run of the reference; one by one where that fails, to find out which fails."""
        options = self.options
        if not options.with_reference:
            return [NO_REFERENCE for _ in bundles]

        def scored(given: list[_Given]) -> tuple[tuple[EvaluationReport[Any], ...], ...]:
            return evaluate(
                [each.path for each in given],
                reference=options.reference,
                data=options.data,
                samples=options.samples,
                threads=options.threads,
            )

        together = self._section(bundles[0].name, bundles[0].path, lambda: scored(bundles), final=len(bundles) == 1)
        if not isinstance(together, NotMeasured):
            return list(together)
        if len(bundles) == 1:
            return [together]
        alone = [self._section(each.name, each.path, partial(scored, [each])) for each in bundles]
        return [each if isinstance(each, NotMeasured) else each[0] for each in alone]

    def _section(self, name: str, path: Path, work: Callable[[], T], *, final: bool = True) -> T | NotMeasured:
        """The result of some work, or why there is none. A failed check counts, and so does a defect."""
        try:
            return work()
        except Exception as error:
            known = typed(error)
            text = str(known) if known is not None else f"{type(error).__name__}: {error}"
            text = text.replace(str(path.resolve()), name).replace(str(path), name)
            if final and (known is None or isinstance(known, CheckError)):
                self.failures.append(f"{name}: {text}")
            if known is None:
                LOGGER.exception("%s: a section of the report failed", name)
            return NotMeasured(text)
