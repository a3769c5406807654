"""What an emoji model can do on held-out emoji, each figure beside the baseline that knows nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver_deploy.datasets.emoji import PADDING, decode
from perceiver_deploy.datasets.emoji.sample import Splits, Table
from perceiver_deploy.models.hybrid import Hybrid
from perceiver_deploy.models.hybrid.decoder import greedy
from zoo_training.data.emoji import concept
from zoo_training.edit_distance import similarity
from zoo_training.emoji_model import KIND, MATCH, NAME, VERSION
from zoo_training.emoji_tensors import tensors


@dataclass(frozen=True)
class Spelling:
    """Names against true ones: share that is exact, share right but for skin tone, hair and gender, edit similarity."""

    exact: float
    concept: float
    similarity: float


@dataclass(frozen=True)
class NameScore:
    """Names spelt from pictures, beside the one training name that is most like all others, whatever the picture.

    `nearest` says the name of the training picture of the least squared difference: no training name is exact. Then
    bits per byte of the true name, and the same with another emoji's picture.
    """

    spelt: Spelling
    constant: Spelling
    nearest: Spelling
    bits_per_byte: float
    bits_per_byte_of_other_picture: float


@dataclass(frozen=True)
class VersionScore:
    """Mean absolute error of the version, that of always saying the training median, and the correlation."""

    mae: float
    mae_of_median: float
    correlation: float


@dataclass(frozen=True)
class Scores:
    """By split. Matching is accuracy over true pairs and as many false ones: chance is 0.5.

    Kinds is accuracy over 99 of them, from the picture alone; kinds_of_majority that of the commonest in training,
    kinds_of_nearest that of the nearest training picture.
    """

    kinds: dict[str, float]
    kinds_of_majority: dict[str, float]
    kinds_of_nearest: dict[str, float]
    names: dict[str, NameScore]
    matching: dict[str, float]
    versions: dict[str, VersionScore]


def score(model: Hybrid, splits: Splits) -> Scores:
    """Score a model on the held-out splits."""
    parts = {"variants": splits.variants, "concepts": splits.concepts}
    with torch.inference_mode():
        return Scores(
            kinds={name: score_kinds(model, table) for name, table in parts.items()},
            kinds_of_majority={name: majority(splits.training, table) for name, table in parts.items()},
            kinds_of_nearest={
                name: float((splits.training.kinds[nearest(splits.training, table)] == table.kinds).mean())
                for name, table in parts.items()
            },
            names={name: score_names(model, splits.training, table) for name, table in parts.items()},
            matching={name: score_matching(model, table) for name, table in parts.items()},
            versions={name: score_versions(model, splits.training, table) for name, table in parts.items()},
        )


def score_kinds(model: Hybrid, table: Table) -> float:
    """Accuracy of the kind from the picture, the text being missing."""
    data = tensors(table)
    logits = model.heads[KIND](model.trunk(data.pixels, torch.full_like(data.ids, PADDING)))
    return float((logits.argmax(dim=1) == data.kind).float().mean())


def majority(training: Table, table: Table) -> float:
    """Accuracy of always saying the commonest kind of the training emoji."""
    kinds, counts = np.unique(training.kinds, return_counts=True)
    return float((table.kinds == kinds[counts.argmax()]).mean())


def score_names(model: Hybrid, training: Table, table: Table) -> NameScore:
    """Names of a table's pictures, the text being missing."""
    data, decoder = tensors(table), model.generator(NAME)
    latents = model.trunk(data.pixels, torch.full_like(data.ids, PADDING))

    def bits(latents: Tensor) -> float:
        log_probs = decoder(latents, data.spoken)
        loss = F.nll_loss(log_probs.flatten(0, 1), data.target.flatten(), ignore_index=PADDING)
        return loss.item() / math.log(2)

    true = table.names.tolist()
    return NameScore(
        spelt=spelling([decode(row) for row in greedy(decoder, latents).tolist()], true),
        constant=spelling([typical(training.names.tolist())] * len(true), true),
        nearest=spelling(training.names[nearest(training, table)].tolist(), true),
        bits_per_byte=bits(latents),
        bits_per_byte_of_other_picture=bits(latents[torch.from_numpy(_others(len(latents)))]),
    )


def spelling(said: list[str], true: list[str]) -> Spelling:
    """Score names against true ones, pair by pair."""
    pairs = list(zip(said, true, strict=True))
    return Spelling(
        exact=float(np.mean([a == b for a, b in pairs])),
        concept=float(np.mean([concept(a) == concept(b) for a, b in pairs])),
        similarity=float(similarity(said, true).mean()),
    )


def typical(names: list[str], sample: int = 64) -> str:
    """Of that many names, drawn at random, the one of the highest mean edit similarity to them."""
    drawn = [names[row] for row in np.random.default_rng(0).permutation(len(names))[:sample]]
    pairs = similarity([a for a in drawn for _ in drawn], drawn * len(drawn))
    middle = int(pairs.reshape(len(drawn), len(drawn)).mean(axis=1).argmax())
    return str(drawn[middle])


def nearest(training: Table, table: Table) -> npt.NDArray[np.intp]:
    """For each of a table's pictures (N,), the row of the training picture of the least squared difference."""
    known, asked = (part.images.reshape(len(part.images), -1).astype(np.float32) for part in (training, table))
    rows: npt.NDArray[np.intp] = ((known**2).sum(axis=1) - 2.0 * asked @ known.T).argmin(axis=1)
    return rows


def score_matching(model: Hybrid, table: Table) -> float:
    """Accuracy over every picture with its own name, and with the name of another emoji of the table."""
    data = tensors(table)
    others = torch.from_numpy(_others(len(data.ids)))
    right = [model.heads[MATCH](model.trunk(data.pixels, ids)).argmax(dim=1) for ids in (data.ids, data.ids[others])]
    return float(torch.cat([right[0] == 1, right[1] == 0]).float().mean())


def score_versions(model: Hybrid, training: Table, table: Table) -> VersionScore:
    """Versions from pictures with their names."""
    data = tensors(table)
    got, true = model.heads[VERSION](model.trunk(data.pixels, data.ids))[:, 0].numpy(), table.versions
    return VersionScore(
        mae=float(np.abs(got - true).mean()),
        mae_of_median=float(np.abs(np.median(training.versions) - true).mean()),
        correlation=float(np.corrcoef(got, true)[0, 1]),
    )


def _others(samples: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For every sample another one, by a fixed random cycle."""
    order = np.random.default_rng(0).permutation(samples)
    others = np.empty(samples, np.int64)
    others[order] = np.roll(order, 1)
    return others
