"""Task metrics of deployed bundles beside those of their PyTorch reference, on the same held-out data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from perceiver_deploy.datasets import Dataset, Scored
from perceiver_deploy.datasets.metrics import (
    ClassificationMetrics,
    RegressionMetrics,
    evaluate_classification,
    evaluate_regression,
)
from perceiver_deploy.sources.reference import reference_of
from perceiver_deploy.sources.source import Model, batches
from perceiver_exporters.component import Cut
from perceiver_exporters.reference import Reference
from perceiver_runtime import Session, open_session
from perceiver_runtime.backends import check_threads
from perceiver_runtime.errors import UsageError
from perceiver_runtime.execution.choice import RunsOn
from perceiver_runtime.format.ranges import batch_within
from perceiver_runtime.progress import track
from perceiver_runtime.tensors import Array

M = TypeVar("M", ClassificationMetrics, RegressionMetrics)
Metrics = ClassificationMetrics | RegressionMetrics
Expected = Mapping[str, Array]
"""The reference's scored outputs, by name."""


@dataclass(frozen=True)
class EvaluationReport(Generic[M]):
    """Reference and deployed metrics of one `output` over the same `samples` held-out samples of `dataset`.

    `difference` is deployed minus reference, by metric (a metric that either lacks is left out); `agreement` is the
    share of samples for which both predict the same class, right or wrong, and None for numbers.
    """

    dataset: str
    output: str
    samples: int
    precision: str
    reference: M
    deployed: M
    difference: Mapping[str, float]
    agreement: float | None
    runs_on: RunsOn | None = None


@dataclass(frozen=True)
class _Scoring:
    compared: tuple[str, ...]
    score: Callable[[Array, Scored], Metrics]


SCORINGS: Mapping[str, _Scoring] = {
    "classification": _Scoring(
        ("accuracy", "precision", "recall", "f1"),
        lambda logits, scored: evaluate_classification(logits, scored.targets, scored.labels),
    ),
    "regression": _Scoring(
        ("mae", "mape"),
        lambda numbers, scored: evaluate_regression(
            (numbers[:, 0] if scored.targets.ndim == 1 else numbers).astype(np.float64), scored.targets
        ),
    ),
}
"""By task: the metrics that are compared, and how an output (N, classes), or (N, T) of numbers, is scored."""


def evaluate_bundle(
    bundle: str | Path, *, reference: str | None = None, batch: int = 64, threads: int | None = None
) -> EvaluationReport[ClassificationMetrics]:
    """Score the main output of a bundle, and of its PyTorch reference.

    Args:
        bundle: Directory of the bundle.
        reference: As for `evaluate`.
        batch: As for `evaluate`.
        threads: As for `evaluate`.

    Returns:
        The first report of `evaluate`.

    Raises:
        UsageError: As `evaluate` does.
        CheckError: As `evaluate` does.
        BundleError: As `evaluate` does.
    """
    return evaluate(bundle, reference=reference, batch=batch, threads=threads)[0][0]


def evaluate(
    bundles: str | Path | Sequence[str | Path],
    *,
    reference: str | None = None,
    batch: int = 64,
    threads: int | None = None,
) -> tuple[tuple[EvaluationReport[Any], ...], ...]:
    """Score bundles of one model, and their PyTorch reference, on the held-out data of the model's data set.

    Args:
        bundles: Directory of the bundle, or of several of one model.
        reference: Model of the zoo or checkpoint that the reference's weights come from; None: the bundles' source.
        batch: Samples per call; a bundle that does not take as many gets the nearest number that it takes.
        threads: CPU threads of the reference and of all bundles; None: PyTorch's choice.

    Returns:
        For each bundle, in order, a report for each output that the data set scores.

    Raises:
        UsageError: The bundles are not of one model, the reference has other weights or no data set, or `threads` is
            out of range.
        CheckError: An output is NaN or infinite.
        BundleError: A bundle is damaged.
    """
    paths = [bundles] if isinstance(bundles, (str, Path)) else bundles
    check_threads(threads)
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    with ExitStack() as opened:
        sessions = [opened.enter_context(open_session(bundle, threads=threads)) for bundle in paths]
        sources = [session.manifest.source for session in sessions]
        if len({source.weights_sha256 for source in sources}) != 1:
            names = ", ".join(source.name for source in sources)
            raise UsageError(f"evaluate: expected bundles of one model, got {names}; evaluate each model by itself")
        model = reference_of(sessions[0].bundle, reference)
        dataset = _dataset(model)
        expected = reference_outputs(model.family.cut(model.module), dataset, batch=batch)
        return tuple(tuple(compare(session, dataset, expected, batch=batch)) for session in sessions)


def evaluate_session(
    session: Session, dataset: Dataset, reference: Cut, *, batch: int = 64
) -> EvaluationReport[ClassificationMetrics]:
    """Score the main output of an open session and of its reference, cut the same way, `batch` samples at a time."""
    return next(compare(session, dataset, reference_outputs(reference, dataset, batch=batch), batch=batch))


def reference_outputs(reference: Cut, dataset: Dataset, *, batch: int = 64) -> Expected:
    """What the reference gives for each output that the data set scores."""
    model = Reference(reference)
    return {
        scored.output: np.concatenate(
            [
                model.run(feed).values[scored.output]
                for feed in track(batches(scored.held_out, batch), f"reference: {scored.output}")
            ]
        )
        for scored in dataset.scored
    }


def compare(
    session: Session, dataset: Dataset, expected: Expected, *, batch: int = 64
) -> Iterator[EvaluationReport[Any]]:
    """Score an open session beside what its reference gives, one output after the other."""
    for scored in dataset.scored:
        output, scoring = scored.output, SCORINGS[scored.task]
        deployed = _answers(session, scored.held_out, output, batch)
        metrics = scoring.score(expected[output], scored), scoring.score(deployed, scored)
        pairs = {name: tuple(getattr(m, name) for m in metrics) for name in scoring.compared}
        agree = expected[output].argmax(axis=1) == deployed.argmax(axis=1)
        yield EvaluationReport(
            dataset=dataset.name,
            output=output,
            samples=len(scored.targets),
            precision=session.manifest.precision,
            reference=metrics[0],
            deployed=metrics[1],
            difference={name: pair[1] - pair[0] for name, pair in pairs.items() if None not in pair},
            agreement=float(agree.mean()) if scored.task == "classification" else None,
            runs_on=session.runs_on,
        )


def _answers(session: Session, samples: Mapping[str, Array], output: str, batch: int) -> Array:
    """One output for all samples, in batches that the bundle takes; the last is filled up with repeated rows."""
    profiles = session.manifest.profiles
    answers = []
    feeds = batches(samples, batch_within(profiles, batch))
    for feed in track(feeds, f"{session.bundle.path} on {session.backend}: {output}"):
        rows = len(next(iter(feed.values())))
        taken = np.arange(batch_within(profiles, rows)) % rows
        answers.append(session.run({n: array[taken] for n, array in feed.items()}, (output,))[output][:rows])
    return np.concatenate(answers)


def _dataset(model: Model) -> Dataset:
    if model.dataset is None:
        raise UsageError(f"evaluate: expected a model with a data set of its own, {model.name} has none")
    return model.dataset
