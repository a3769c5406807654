"""Task metrics of deployed bundles beside those of their PyTorch reference, on the same samples."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from perceiver_deploy.api.scoring import CustomMetrics, Side, compared, groups, share, share_name
from perceiver_deploy.data.draw import DataOptions
from perceiver_deploy.data.recorded import evaluation_data
from perceiver_deploy.datasets import Dataset, Samples, Scored
from perceiver_deploy.datasets.dataset import Batch, filled, fixed_batch
from perceiver_deploy.sources.reference import reference_of
from perceiver_exporters.component import Cut
from perceiver_exporters.diagnose.range_shift import RangeShift, RangeWatch
from perceiver_exporters.reference import Reference
from perceiver_runtime import Session, open_session
from perceiver_runtime.backends import check_threads
from perceiver_runtime.conditions import Conditions, conditions_of
from perceiver_runtime.errors import UsageError
from perceiver_runtime.evaluation.dense import FlowMetrics, ReconstructionMetrics, TokenMetrics
from perceiver_runtime.evaluation.evaluate import answers
from perceiver_runtime.evaluation.metrics import ClassificationMetrics, RegressionMetrics
from perceiver_runtime.execution.choice import RunsOn
from perceiver_runtime.progress import count
from perceiver_runtime.tensors import Array

LOGGER = logging.getLogger(__name__)
M = TypeVar(
    "M",
    ClassificationMetrics,
    RegressionMetrics,
    TokenMetrics,
    FlowMetrics,
    ReconstructionMetrics,
    CustomMetrics,
)


@dataclass(frozen=True)
class EvaluationReport(Generic[M]):
    """Reference and deployed metrics of one `output` over the same `samples` of `dataset`.

    `held_out` is false where some of these samples may have calibrated the bundle.
    `difference` is deployed minus reference, by metric (a metric that either lacks is left out); `agreement` is the
    share of samples for which both predict the same class, right or wrong, and None for other tasks. `share` names the
    metric that is a share, such as an accuracy, and `points_lost` are the hundredths of it that the bundle has lost.
    `range_shift` says by component how many activations of these samples an int8 bundle saturates. `conditions` says
    what was scored, and where.
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
    share: str = ""
    points_lost: float | None = None
    range_shift: tuple[RangeShift, ...] = ()
    held_out: bool = True
    conditions: Conditions | None = None


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
    data: object = None,
    samples: int | None = None,
    metric: object = None,
    batch: int = 64,
    threads: int | None = None,
) -> tuple[tuple[EvaluationReport[Any], ...], ...]:
    """Score bundles of one model, and their PyTorch reference, on the same labelled samples.

    Args:
        bundles: Directory of the bundle, or of several of one model.
        reference: Model of the zoo or checkpoint that the reference's weights come from; None: the bundles' source.
        data: Data as for `export`. Of the data that the bundles were made with, the evaluation samples are taken; of
            others, all. None: the data that the bundles were made with, found where they were or by their name; or else
            the model's own data set.
        samples: Number of samples, drawn at random, of data that the bundles were not made with; None: all.
        metric: `file.py:function` or a function that scores outputs by name against targets by name, in place of the
            task's metrics.
        batch: Samples per call; a bundle that does not take as many gets the nearest number that it takes.
        threads: CPU threads of the reference and of all bundles; None: PyTorch's choice.

    Returns:
        For each bundle, in order, a report for each output that the data score.

    Raises:
        UsageError: The bundles are not of one model, the reference has other weights, there are no data, or `threads`
            is out of range.
        DatasetError: The data do not fit the model, have no targets, or have changed since the export.
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
        chosen = evaluation_data(sessions[0].bundle, model, DataOptions(data, evaluation=samples, metric=metric))
        return evaluate_sessions(sessions, chosen, model.family.cut(model.module), batch=batch)


def evaluate_session(
    session: Session, dataset: Dataset, reference: Cut, *, batch: int = 64
) -> EvaluationReport[ClassificationMetrics]:
    """Score the main output of an open session and of its reference, cut the same way, `batch` samples at a time."""
    return evaluate_sessions([session], dataset, reference, batch=batch)[0][0]


def evaluate_sessions(
    sessions: Sequence[Session], dataset: Dataset, reference: Cut, *, batch: int = 64
) -> tuple[tuple[EvaluationReport[Any], ...], ...]:
    """Score open sessions of one model beside its reference: for each session, a report for each scored output."""
    model = Reference(reference)
    watches = [RangeWatch(session.bundle) for session in sessions]
    found: dict[str, list[EvaluationReport[Any]]] = {}
    for samples, group in groups(dataset.scored):
        for each in _group(sessions, watches, samples, group, model, batch, dataset):
            found.setdefault(each[0].output, []).extend(each)
    for session, watch in zip(sessions, watches, strict=True):
        _warn(session, watch)
    ordered = [found[scored.output] for scored in dataset.scored]
    return tuple(tuple(reports[i] for reports in ordered) for i in range(len(sessions)))


def _warn(session: Session, watch: RangeWatch) -> None:
    for shift in watch.shifts():
        if shift.warned:
            LOGGER.warning(
                "warning: %s: %s: %.2f%% of the activations lie outside the calibrated ranges (%s: %.2f%%): calibrate "
                "with samples like these",
                *(session.bundle.path, shift.component, 100 * shift.share, shift.tensor, 100 * shift.tensor_share),
            )


def _group(
    sessions: Sequence[Session],
    watches: Sequence[RangeWatch],
    samples: Samples,
    group: Sequence[Scored],
    model: Reference,
    batch: int,
    dataset: Dataset,
) -> Iterator[list[EvaluationReport[Any]]]:
    """Of each output that is scored on these samples, the reports of all sessions."""
    outputs = _outputs(group, model.cut)
    tallies = [[_Tally(scored) for scored in group] for _ in sessions]
    done = 0
    for part in samples.batches(fixed_batch(model.cut.pipeline.inputs) or batch):
        count(f"evaluate {', '.join(outputs)}", done, len(samples))
        expected = _expected(model, watches, part, outputs)
        for session, tally in zip(sessions, tallies, strict=True):
            got = answers(session, part.feeds, outputs, batch)
            for each in tally:
                each.add(expected, got, part)
        done += len(part)
    count(f"evaluate {', '.join(outputs)}", done, done)
    for i in range(len(group)):
        yield [
            tally[i].report(dataset, session, watch)
            for session, tally, watch in zip(sessions, tallies, watches, strict=True)
        ]


def _outputs(group: Sequence[Scored], cut: Cut) -> tuple[str, ...]:
    """The outputs that are scored; all of them where a function of the user's scores."""
    known = [spec.name for spec in cut.pipeline.outputs]
    named = [scored.output for scored in group]
    return tuple(named if set(named) <= set(known) else known)


def _expected(
    model: Reference, watches: Sequence[RangeWatch], part: Batch, outputs: Sequence[str]
) -> Mapping[str, Array]:
    """The reference's outputs; what it gives each component is shown to the watches."""
    values: dict[str, Any] = {}
    fixed = fixed_batch(model.cut.pipeline.inputs)
    for call in model.calls(filled(part.feeds, fixed), values):
        for watch in watches:
            watch.see(call)
    shown = model.cut.pipeline.shown
    return {name: values[shown.get(name, name)].detach().numpy()[: len(part)] for name in outputs}


class _Tally:
    """The scores of a reference and of a session on one output."""

    def __init__(self, scored: Scored) -> None:
        self._scored, self._reference, self._deployed = scored, Side(scored), Side(scored)
        self._alike = 0

    def add(self, expected: Mapping[str, Array], got: Mapping[str, Array], part: Batch) -> None:
        """Count a batch."""
        self._reference.add(expected, part)
        self._deployed.add(got, part)
        if self._scored.task == "classification":
            name = self._scored.output
            self._alike += int((expected[name].argmax(axis=1) == got[name].argmax(axis=1)).sum())

    def report(self, dataset: Dataset, session: Session, watch: RangeWatch) -> EvaluationReport[Any]:
        """What came of it."""
        metrics = self._reference.result(), self._deployed.result()
        pairs = zip(*(compared(self._scored, each).items() for each in metrics), strict=True)
        samples = len(self._scored.samples)
        name, shares = share_name(self._scored), [share(self._scored, each) for each in metrics]
        lost = None if shares[0] is None or shares[1] is None else 100 * (shares[0] - shares[1])
        return EvaluationReport(
            dataset=dataset.name,
            output=self._scored.output,
            samples=samples,
            precision=session.manifest.precision,
            reference=metrics[0],
            deployed=metrics[1],
            difference={n: own - exact for (n, exact), (_, own) in pairs if exact is not None and own is not None},
            agreement=self._alike / samples if self._scored.task == "classification" else None,
            runs_on=session.runs_on,
            share=name if lost is not None else "",
            points_lost=lost,
            range_shift=watch.shifts(),
            held_out=dataset.held_out,
            conditions=conditions_of(session),
        )
