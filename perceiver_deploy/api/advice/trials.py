"""Candidates: each precision exported once, measured with each backend of this machine, or forecast for boards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from perceiver_deploy.api.advice.candidate import THIS_MACHINE, Candidate
from perceiver_deploy.api.alone import measure_alone
from perceiver_deploy.api.evaluate import evaluate_sessions
from perceiver_deploy.api.tune import open_if_available
from perceiver_deploy.api.verify import backend_for
from perceiver_deploy.sources.model import Model
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.widen import runnable_bundle
from perceiver_exporters.roofline.forecast import forecasts
from perceiver_exporters.targets.target import TARGETS, Board
from perceiver_runtime import Session, load_bundle, open_session
from perceiver_runtime.benchmark.latency import sized_feeds
from perceiver_runtime.benchmark.statistics import ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import CheckError, UnavailableError, UsageError
from perceiver_runtime.format.ranges import BATCH, batch_within
from perceiver_runtime.golden import load_golden
from perceiver_runtime.machine import usable_cores
from perceiver_runtime.measure.parity import PIPELINE
from perceiver_runtime.measure.verify import VerifyReport, verify
from perceiver_runtime.progress import report

LOGGER = logging.getLogger(__name__)
BACKENDS = ("onnxruntime", "openvino", "openvino-bf16")
RUNS = 5
"""Of a measurement of memory: ONNX Runtime packs the weights of heavy graphs in the background, for some runs."""
CONTROL = "fp32"
"""The precision that all others are timed beside: clocks drift between groups of sessions."""


@dataclass(frozen=True)
class Trial:
    """How candidates are made: the model, its blueprint, and where bundles go."""

    model: Model
    made: Blueprint
    target: str
    quantization: QuantizationOptions
    folder: Path
    rounds: int
    batch: int

    def export(self, precisions: Sequence[str]) -> Iterator[tuple[str, Path]]:
        """A bundle of each precision that can be made; the reason for the others is logged."""
        traces = SharedTraces()
        for precision in precisions:
            path = self.folder / precision
            report(f"export {precision}")
            try:
                export_bundle(self.made, path, precision, self.target, tracer=traces, quantization=self.quantization)
            except (UsageError, CheckError, UnavailableError) as error:
                LOGGER.warning("warning: %s is left out: %s", precision, error)
                continue
            yield precision, path

    def measure(self, bundles: Sequence[tuple[str, Path]]) -> Iterator[Candidate]:
        """Of each precision and backend the fastest number of threads: accuracy, parity, latency and memory."""
        control = dict(bundles).get(CONTROL, bundles[0][1])
        level = 0.0
        for precision, path in bundles:
            with ExitStack() as opened:
                first = opened.enter_context(open_session(control, "onnxruntime", usable_cores(), check_finite=False))
                sessions = list(_sessions(opened, path))
                times = self._times([first, *sessions])
                level = level or float(np.median(times[0]))
                fastest = _fastest(sessions, times[1:])
                lost = self._points_lost([session for session, _ in fastest])
                for session, each in fastest:
                    slower = ratio(each, times[0])
                    checked = verify(session)
                    yield Candidate(
                        device=THIS_MACHINE,
                        precision=precision,
                        backend=session.backend,
                        threads=session.threads,
                        latency_ms=level * slower.median,
                        low_ms=level * slower.low,
                        high_ms=level * slower.high,
                        forecast=False,
                        points_lost=lost.get(session.backend),
                        relative_l2=_error(checked),
                        memory_bytes=self._memory(path, session),
                        size_bytes=_size(session),
                        verified=checked.passed,
                    )

    def _memory(self, path: Path, session: Session) -> int | None:
        """Peak of a process that runs the bundle alone."""
        rows = batch_within(session.manifest.profiles, self.batch)
        alone = measure_alone(path, session.backend, session.threads, batch=rows, iterations=RUNS, warmup=0)
        return alone.memory.peak_rss

    def forecast(self, bundles: Sequence[tuple[str, Path]], boards: Sequence[Board]) -> Iterator[Candidate]:
        """For each board: accuracy and parity by exact arithmetic on this machine, latency and memory as forecasts."""
        backend = backend_for(self.target)
        for precision, path in bundles:
            loaded = load_bundle(path)
            with (
                runnable_bundle(loaded, backend) as runnable,
                open_session(runnable, backend, check_finite=False) as session,
            ):
                lost = self._points_lost([session]).get(session.backend)
                checked, size = verify(session), _size(session)
            known = {each.board: each for each in forecasts(loaded, self._sizes(loaded)) if each.precision == precision}
            for board in boards:
                if (expected := known.get(board.name)) is None:
                    LOGGER.warning(
                        "warning: %s for %s is left out: the target table has no rate", precision, board.name
                    )
                    continue
                yield Candidate(
                    device=board.name,
                    precision=precision,
                    backend=TARGETS[self.target].backend,
                    threads=None,
                    latency_ms=expected.pessimistic_s * 1e3,
                    low_ms=expected.optimistic_s * 1e3,
                    high_ms=expected.pessimistic_s * 1e3,
                    forecast=True,
                    points_lost=lost,
                    relative_l2=_error(checked),
                    memory_bytes=expected.memory,
                    size_bytes=size,
                    verified=checked.passed,
                )

    def _sizes(self, bundle: Bundle) -> dict[str, int]:
        profiles = bundle.manifest.profiles
        known = bool(profiles) and BATCH in profiles[0].dimensions
        return {BATCH: batch_within(profiles, self.batch)} if known else {}

    def _times(self, sessions: Sequence[Session]) -> list[tuple[float, ...]]:
        report(f"time {len(sessions) - 1} settings beside {CONTROL} on ONNX Runtime")
        calls = {}
        for i, session in enumerate(sessions):
            rows = batch_within(session.manifest.profiles, self.batch)
            calls[i] = partial(session.run, sized_feeds(session, load_golden(session.bundle)[0].feeds, rows))
        return list(interleave(calls, self.rounds).values())

    def _points_lost(self, sessions: Sequence[Session]) -> dict[str, float]:
        """By backend; empty without labelled samples, or where they score no share."""
        if self.model.dataset is None or not self.model.dataset.scored:
            return {}
        evaluated = evaluate_sessions(sessions, self.model.dataset, self.model.family.cut(self.model.module))
        found: dict[str, float] = {}
        for session, reports in zip(sessions, evaluated, strict=True):
            lost = [r.points_lost for r in reports if r.points_lost is not None]
            found |= {session.backend: max(lost)} if lost else {}
        return found


def _sessions(opened: ExitStack, path: Path) -> Iterator[Session]:
    for backend in BACKENDS:
        for threads in sorted({1, usable_cores()}):
            if (session := open_if_available(path, backend, threads)) is not None:
                yield opened.enter_context(session)


def _fastest(
    sessions: Sequence[Session], times: Sequence[tuple[float, ...]]
) -> list[tuple[Session, tuple[float, ...]]]:
    """Of each backend the session with the least median."""
    pairs = sorted(zip(sessions, times, strict=True), key=lambda pair: float(np.median(pair[1])))
    return list({session.backend: (session, each) for session, each in reversed(pairs)}.values())


def _error(checked: VerifyReport) -> float:
    return max((r.rel_l2 for r in checked.reports if r.component == PIPELINE), default=float("nan"))


def _size(session: Session) -> int:
    return sum(session.manifest.files[c.onnx].size for c in session.manifest.components)
