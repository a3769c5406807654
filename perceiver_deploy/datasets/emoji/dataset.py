"""The shipped emoji as a data set: does a picture match a name?"""

from __future__ import annotations

import numpy as np

from perceiver_deploy.datasets.dataset import ArraySamples, Dataset, Scored, shipped
from perceiver_deploy.datasets.emoji import LENGTH, OFFSET, PADDING, SIZE, START, encode, scale
from perceiver_deploy.datasets.emoji.kinds import KINDS
from perceiver_deploy.datasets.emoji.sample import Splits, Table, read_sample
from perceiver_runtime.settings import ImageSettings, OutputSettings, Processing, TextSettings
from perceiver_runtime.tensors import Array

NAME = "emoji"
LABELS = ("other", "same")
PROCESSING = Processing(
    image=ImageSettings(size=(SIZE, SIZE)),
    text=TextSettings(offset=OFFSET, max_length=LENGTH, truncation=True),
    outputs={
        "kind": OutputSettings("classes", KINDS),
        "match": OutputSettings("classes", LABELS),
        "version": OutputSettings("numbers"),
        "name_log_probs": OutputSettings("tokens"),
    },
    origin="its training data",
)


def load() -> Dataset:
    """Training emoji for calibration; held-out ones with their own name and as many with another's."""
    sample = read_sample()
    held_out = [feeds(table, names) for table in (sample.variants, sample.concepts) for names in _pairs(table)]
    rows = [len(feed["input_ids"]) for feed in held_out]
    return shipped(
        name=NAME,
        labels=LABELS,
        calibration={**feeds(sample.training, sample.training.names.tolist()), "name_token": _spoken(sample.training)},
        held_out={name: np.concatenate([feed[name] for feed in held_out]) for name in held_out[0]},
        targets=np.concatenate([np.full(n, i % 2 == 0, np.int64) for i, n in enumerate(rows)]),
        output="match",
        more=_more(sample),
    )


def _more(sample: Splits) -> tuple[Scored, ...]:
    """The kind from the picture alone, and the version from the picture with its name, of all held-out emoji."""
    tables = (sample.variants, sample.concepts)
    named = [feeds(table, table.names.tolist()) for table in tables]
    given = {name: np.concatenate([feed[name] for feed in named]) for name in named[0]}
    nameless = {**given, "input_ids": np.full_like(given["input_ids"], PADDING)}
    kinds = np.array([KINDS.index(kind) for table in tables for kind in table.kinds.tolist()])
    versions = np.concatenate([table.versions for table in tables]).astype(np.float64)
    return (
        Scored("kind", "classification", ArraySamples(nameless, {"kind": kinds}), KINDS),
        Scored("version", "regression", ArraySamples(given, {"version": versions})),
    )


def feeds(table: Table, names: list[str]) -> dict[str, Array]:
    """The session's inputs: the table's pictures with the names given, and the token that starts a name."""
    return {
        "pixel_values": scale(table.images),
        "input_ids": encode(names),
        "name_token": np.full(len(names), START, np.int64),
    }


def _spoken(table: Table) -> Array:
    """A random byte of each name: the decoder step is calibrated on more than the start of names."""
    random, ids = np.random.default_rng(0), encode(table.names.tolist())
    spoken: Array = ids[np.arange(len(ids)), random.integers(0, (ids != PADDING).sum(axis=1))]
    return spoken


def _pairs(table: Table) -> tuple[list[str], list[str]]:
    """Every picture's own name, and the name of another emoji of the table, by a fixed random cycle."""
    order = np.random.default_rng(0).permutation(len(table.names))
    others = table.names.copy()
    others[order] = table.names[np.roll(order, 1)]
    return table.names.tolist(), others.tolist()
