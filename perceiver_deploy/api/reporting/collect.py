"""Measure what a report shows. What can't be measured is a reason, and the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from perceiver_deploy.api.alone import measure_alone
from perceiver_deploy.api.bench import TORCH, BenchmarkReport, bench
from perceiver_deploy.api.evaluate import EvaluationReport, evaluate
from perceiver_deploy.api.growth import growth
from perceiver_deploy.api.inspect import inspect
from perceiver_deploy.api.reporting.data import BundleReport, Damaged, ModelReport, Run
from perceiver_deploy.api.verify import Verification, verify
from perceiver_exporters.roofline.ceilings import measure_ceilings
from perceiver_exporters.roofline.forecast import forecasts
from perceiver_exporters.roofline.points import Roofline, roofline
from perceiver_exporters.roofline.work import work_of
from perceiver_runtime import load_bundle
from perceiver_runtime.benchmark.report import LatencyReport, NotMeasured
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import CheckError, UnavailableError, typed
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.measure.parity import golden_origin
from perceiver_runtime.progress import report as progress

LOGGER = logging.getLogger(__name__)
NO_REFERENCE = NotMeasured("the reference was left out (--no-reference)")
T = TypeVar("T")
Timed = dict[tuple[str, int], BenchmarkReport | NotMeasured]
"""Times by backend and batch size."""


@dataclass(frozen=True)
class ReportOptions:
    """What to measure.

    Attributes:
        backends: Backends that each bundle is measured on.
        batches: Rows per run.
        iterations: Measured runs of each, at least 2.
        warmup: Runs of each before the measured ones.
        threads: CPU threads; None leaves the choice to the session.
        reference: Model or checkpoint with the bundles' weights; None: their source.
        with_reference: Whether the reference is run: without it there are no accuracies, error curves and speed-ups.
        data: Labelled samples, as `evaluate` takes them; None: those of the export.
        samples: Number of samples of other data than the export's; None: all.
    """

    backends: tuple[str, ...] = ("auto",)
    batches: tuple[int, ...] = (1,)
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
    bundle: Bundle


class Collector:
    """Measures bundles one after the other. `failures` and `damaged` say what was wrong with those so far."""

    def __init__(self, options: ReportOptions) -> None:
        self.options = options
        self.failures: list[str] = []
        self.damaged: list[Damaged] = []
        self._types: frozenset[str] = frozenset()

    def models(self, bundles: Mapping[str, Path]) -> tuple[ModelReport, ...]:
        """The bundles by name, measured, under their models."""
        found: dict[str, list[_Given]] = {}
        for name, path in bundles.items():
            opened = self._section(name, path, partial(load_bundle, path))
            if isinstance(opened, NotMeasured):
                self.damaged.append(Damaged(name, opened.reason))
                self.failures.append(f"{name} can't be opened: {opened.reason}")
            else:
                found.setdefault(opened.manifest.source.weights_sha256, []).append(_Given(name, path, opened))
        given = [each for bundles in found.values() for each in bundles]
        work = [self._section(each.name, each.path, partial(work_of, each.bundle)) for each in given]
        counted = [each for some in work if not isinstance(some, NotMeasured) for each in some]
        self._types = frozenset(kind for each in counted for kind in each.flops_by_type)
        return tuple(self._model(each) for each in found.values())

    def _model(self, bundles: list[_Given]) -> ModelReport:
        first = bundles[0].bundle.manifest
        scores: list[tuple[EvaluationReport[Any], ...] | NotMeasured] = [NO_REFERENCE for _ in bundles]
        if self.options.with_reference:
            scores = self._together(bundles, self._scored)
        return ModelReport(
            source=first.source,
            parameters=sum(component.parameters for component in first.components),
            pipeline=first.pipeline,
            profiles=first.profiles,
            labels=first.labels,
            golden_origin=golden_origin(first),
            processing=first.processing,
            data=first.data,
            bundles=tuple(self._bundle(*each) for each in zip(bundles, scores, self._timed(bundles), strict=True)),
            commands={},
        )

    def _bundle(
        self, given: _Given, accuracy: tuple[EvaluationReport[Any], ...] | NotMeasured, timed: Timed
    ) -> BundleReport:
        name, manifest = given.name, given.bundle.manifest
        verified = {backend: self._verified(given, backend) for backend in self.options.backends}
        claims = [str(b) for each in verified.values() if not isinstance(each, NotMeasured) for b in each.breaches]
        breaches = tuple(dict.fromkeys(claims))
        self.failures += [f"{name}: {breach}" for breach in breaches]
        return BundleReport(
            name=name,
            precision=manifest.precision,
            target=manifest.target,
            opset=manifest.opset,
            components=manifest.components,
            files={path: entry.size for path, entry in manifest.files.items()},
            tools=manifest.tools,
            precisions=self._section(name, given.path, lambda: inspect(given.path, precision=True).precision or ()),
            breaches=breaches,
            runs=tuple(self._runs(given, verified, timed)),
            growth=self._growth(given),
            accuracy=accuracy,
            forecasts=self._section(name, given.path, partial(forecasts, given.bundle)),
        )

    def _verified(self, given: _Given, backend: str) -> Verification | NotMeasured:
        progress(f"[{given.name}] verify")
        chosen = None if backend == "auto" else backend
        found = self._section(given.name, given.path, lambda: verify(given.path, chosen, self.options.threads))
        if not isinstance(found, NotMeasured) and not found.parity.passed:
            worst = max(found.reports, key=lambda r: (not r.passed, r.excess))
            self.failures.append(
                f"{given.name}: parity failed: {worst.tensor} of {worst.component} has {worst.excess:.3g} times the "
                "error that its tolerance allows"
            )
        return found

    def _runs(self, given: _Given, verified: Mapping[str, Verification | NotMeasured], timed: Timed) -> Iterator[Run]:
        for (backend, batch), against in timed.items():
            progress(f"[{given.name}] time alone")
            each = verified[backend]
            alone = self._section(given.name, given.path, partial(self._alone, given.path, backend, batch))
            parity = each if isinstance(each, NotMeasured) else each.parity
            points = self._section(given.name, given.path, partial(self._roofline, given.bundle, alone))
            yield Run(backend, batch, parity, alone, against, points)

    def _roofline(self, bundle: Bundle, latency: LatencyReport | NotMeasured) -> Roofline:
        """Its components at their medians, against ceilings that are measured once for the types of all bundles."""
        if isinstance(latency, NotMeasured):
            raise UnavailableError(latency.reason)
        named = any(BATCH in profile.dimensions for profile in bundle.manifest.profiles)
        work = work_of(bundle, {BATCH: latency.batch} if named else None)
        ceilings = measure_ceilings(latency.backend, latency.threads, self._types)
        milliseconds = {name: times.p50 for name, times in latency.components.items()}
        return Roofline(roofline(work, milliseconds, ceilings), ceilings, work)

    def _alone(self, path: Path, backend: str, batch: int) -> LatencyReport:
        options = self.options
        return measure_alone(
            path, backend, options.threads, batch=batch, iterations=options.iterations, warmup=options.warmup
        )

    def _timed(self, bundles: list[_Given]) -> list[Timed]:
        """Of each bundle, its times for each backend and batch size: all in one run, or one by one where that fails."""
        options = self.options
        found: list[Timed] = [{} for _ in bundles]
        for backend in options.backends:
            for batch in options.batches:
                reports = self._together(bundles, partial(self._beside, backend, batch))
                for times, report in zip(found, reports, strict=True):
                    times[backend, batch] = report
        return found

    def _beside(self, backend: str, batch: int, bundles: list[_Given]) -> list[BenchmarkReport]:
        options = self.options
        reports = bench(
            [each.path for each in bundles],
            against=(TORCH,) if options.with_reference else (),
            reference=options.reference,
            batch=batch,
            iterations=options.iterations,
            warmup=options.warmup,
            threads=options.threads,
            backend=backend,
        )
        names = {str(each.path): each.name for each in bundles}
        return [
            replace(
                report,
                bundle=names[report.bundle],
                speedups={names.get(other, other): ratio for other, ratio in report.speedups.items()},
            )
            for report in reports
        ]

    def _growth(self, given: _Given) -> Any:
        if not self.options.with_reference:
            return NO_REFERENCE
        progress(f"[{given.name}] error growth")
        found = self._section(given.name, given.path, lambda: growth(given.path, reference=self.options.reference))
        return found if isinstance(found, NotMeasured) else found.growth

    def _scored(self, bundles: list[_Given]) -> list[tuple[EvaluationReport[Any], ...]]:
        options = self.options
        found = evaluate(
            [each.path for each in bundles],
            reference=options.reference,
            data=options.data,
            samples=options.samples,
            threads=options.threads,
        )
        return list(found)

    def _together(self, bundles: list[_Given], work: Callable[[list[_Given]], list[T]]) -> list[T | NotMeasured]:
        """A result for each bundle of some work on all of them; one by one where that fails, to learn which fails."""
        first, alone = bundles[0], len(bundles) == 1
        found = self._section(first.name, first.path, lambda: work(bundles), final=alone)
        if not isinstance(found, NotMeasured):
            return [*found]
        if alone:
            return [found]
        return [each for given in bundles for each in self._together([given], work)]

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
