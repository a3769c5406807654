"""Task metrics of a deployed bundle beside those of its PyTorch reference, on the same held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from perceiver_deploy.datasets import Dataset
from perceiver_deploy.metrics import ClassificationMetrics, evaluate_classification
from perceiver_deploy.source import batches, reference_of
from perceiver_exporters.component import Cut
from perceiver_exporters.reference import Reference
from perceiver_runtime import Session, open_session
from perceiver_runtime.errors import UsageError

COMPARED = ("accuracy", "precision", "recall", "f1")


@dataclass(frozen=True)
class EvaluationReport:
    """Reference and deployed metrics over the same `samples` held-out samples of `dataset`.

    `difference` is deployed minus reference, by metric; `agreement` is the share of samples for which both predict
    the same class, right or wrong.
    """

    dataset: str
    samples: int
    precision: str
    reference: ClassificationMetrics
    deployed: ClassificationMetrics
    difference: Mapping[str, float]
    agreement: float


def evaluate_bundle(
    bundle: str | Path, *, reference: str | None = None, batch: int = 64, threads: int | None = None
) -> EvaluationReport:
    """Score a bundle and its reference on the held-out data of the reference's data set.

    The reference's weights come from `reference`, a zoo name or checkpoint (default: the bundle's own source).
    Both use `threads` threads (default: torch's own choice). Raises UsageError if the reference has other weights than
    the bundle or no data set, and what `evaluate` raises.
    """
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    with open_session(bundle, threads=threads) as session:
        model = reference_of(session.manifest.source, reference)
        if model.dataset is None:
            raise UsageError(f"evaluate: expected a model with a data set of its own, {model.name} has none")
        return evaluate(session, model.dataset, model.family.cut(model.module), batch=batch)


def evaluate(session: Session, dataset: Dataset, reference: Cut, *, batch: int = 64) -> EvaluationReport:
    """Score an open session and its reference, cut the same way, on `dataset.held_out`, `batch` samples at a time.

    The output that is scored is the data set's, logits (N, classes). Raises FeedError
    if the bundle does not take such a batch, CheckError if an output is NaN or infinite.
    """
    feeds = batches(dataset.held_out, batch)
    output, model = dataset.output, Reference(reference)
    deployed = np.concatenate([session.run(feed, (output,))[output] for feed in feeds])
    expected = np.concatenate([model.run(feed).values[output] for feed in feeds])
    scores = [evaluate_classification(logits, dataset.targets, dataset.labels) for logits in (expected, deployed)]
    return EvaluationReport(
        dataset=dataset.name,
        samples=len(dataset.targets),
        precision=session.manifest.precision,
        reference=scores[0],
        deployed=scores[1],
        difference={name: getattr(scores[1], name) - getattr(scores[0], name) for name in COMPARED},
        agreement=float((expected.argmax(axis=1) == deployed.argmax(axis=1)).mean()),
    )
