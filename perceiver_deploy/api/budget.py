"""An accuracy budget over a model's own data: the bound for a search of layers to keep in FP32."""

from __future__ import annotations

from collections.abc import Mapping

from perceiver_deploy.api.scoring import Side, bounded, groups
from perceiver_deploy.datasets import Dataset
from perceiver_deploy.datasets.dataset import filled
from perceiver_exporters.precision.options import Budget, Run

BATCH = 64


def accuracy_budget(dataset: Dataset, points: float, batch: int = BATCH, fixed: int = 0) -> Budget:
    """At most `points` (hundredths) lost of each output's score that is a share, on the data set's evaluation samples.

    These are the samples that `evaluate` reports on: the search chooses one number, how many layers are kept, by them.
    They are run `batch` at a time.

    Args:
        dataset: The data.
        points: Hundredths of a score.
        batch: Samples of a run.
        fixed: The only number of rows that the model takes; 0 if it takes several.

    Returns:
        The budget.

    Raises:
        UsageError: Nothing that the data set scores is a share: an accuracy, or a share of pixels.
    """
    scored = bounded(dataset)

    def score(run: Run) -> Mapping[str, float]:
        shares: dict[str, float] = {}
        for samples, group in groups(scored):
            sides = [Side(each) for each in group]
            for part in samples.batches(fixed or batch):
                got = run(filled(part.feeds, fixed), tuple(each.output for each in group))
                made = {name: array[: len(part)] for name, array in got.items()}
                for side in sides:
                    side.add(made, part)
            shares |= {side.scored.output: side.share() for side in sides}
        return shares

    return Budget(points, score)
