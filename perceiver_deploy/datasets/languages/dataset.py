"""The shipped texts as a data set."""

from __future__ import annotations

import numpy as np

from perceiver_deploy.datasets.dataset import Dataset, shipped
from perceiver_deploy.datasets.languages import LANGUAGES, encode
from perceiver_deploy.datasets.languages.sample import read_sample

NAME = "languages"


def load() -> Dataset:
    """Training texts for calibration, and all held-out texts for evaluation."""
    calibration, held_out = read_sample()
    return shipped(
        name=NAME,
        labels=LANGUAGES,
        calibration={"input_ids": encode(calibration.texts)},
        held_out={"input_ids": encode(held_out.texts)},
        targets=np.array(held_out.languages, np.int64),
    )
