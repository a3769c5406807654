"""An accuracy budget over a model's own data: the bound for a search of layers to keep in FP32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from perceiver_deploy.datasets import Dataset
from perceiver_deploy.sources.source import batches
from perceiver_exporters.precision.options import Budget, Run

BATCH = 64


def accuracy_budget(dataset: Dataset, points: float, batch: int = BATCH) -> Budget:
    """At most `points` (hundredths) of accuracy lost on each output that is a classification, on its held-out samples.

    These are the samples that `evaluate` reports on: the search chooses one number, how many layers are kept, by them.
    They are run `batch` at a time.
    """
    scored = [each for each in dataset.scored if each.task == "classification"]

    def score(run: Run) -> Mapping[str, float]:
        accuracies = {}
        for each in scored:
            logits = [run(feeds, (each.output,))[each.output] for feeds in batches(each.held_out, batch)]
            accuracies[each.output] = float((np.concatenate(logits).argmax(axis=1) == each.targets).mean())
        return accuracies

    return Budget(points, score)
