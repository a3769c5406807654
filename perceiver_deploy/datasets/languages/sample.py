"""The texts that are shipped: all held-out ones, and a few training texts to calibrate with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perceiver_deploy.datasets.languages import LANGUAGES
from perceiver_deploy.datasets.languages.source import LabelledText, read_texts, split
from perceiver_runtime.errors import DatasetError

SAMPLE = Path(__file__).with_name("sample.json")
HELD_OUT_SHARE = 0.2
CALIBRATION_SIZE = 384
SEED = 0


@dataclass(frozen=True)
class Texts:
    """Texts and the languages they are in, by index."""

    texts: tuple[str, ...]
    languages: tuple[int, ...]


@dataclass(frozen=True)
class Splits:
    """Texts of disjoint groups of messages; no held-out text occurs in training."""

    training: Texts
    held_out: Texts


def read_splits(django: Path) -> Splits:
    """The splits that the shipped model is trained and scored on. Raises what `read_texts` raises."""
    training, held_out = split(read_texts(django), HELD_OUT_SHARE, SEED)
    known = {one.text for one in training}
    return Splits(_texts(training), _texts([one for one in held_out if one.text not in known]))


def write_sample(splits: Splits, path: Path = SAMPLE) -> None:
    """Write the shipped sample: one line a text, its language's code first."""
    chosen = np.random.default_rng(SEED).permutation(len(splits.training.texts))[:CALIBRATION_SIZE]
    calibration = Texts(
        tuple(splits.training.texts[i] for i in chosen), tuple(splits.training.languages[i] for i in chosen)
    )
    content = {name: _rows(part) for name, part in (("calibration", calibration), ("held_out", splits.held_out))}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def read_sample(path: Path = SAMPLE) -> tuple[Texts, Texts]:
    """Calibration and held-out texts. Raises DatasetError if the file is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _parse(content["calibration"]), _parse(content["held_out"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: expected calibration and held_out texts; {error!r}; install again") from error


def _texts(labelled: list[LabelledText]) -> Texts:
    return Texts(tuple(one.text for one in labelled), tuple(one.language for one in labelled))


def _rows(texts: Texts) -> list[str]:
    return [f"{LANGUAGES[i]} {text}" for i, text in zip(texts.languages, texts.texts, strict=True)]


def _parse(rows: list[str]) -> Texts:
    pairs = [row.split(" ", 1) for row in rows]
    return Texts(tuple(text for _, text in pairs), tuple(LANGUAGES.index(code) for code, _ in pairs))
