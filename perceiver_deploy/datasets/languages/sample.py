"""The texts that the package ships: all held-out ones, and some training texts to calibrate with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.datasets.languages import LANGUAGES
from perceiver_runtime.errors import DatasetError

SAMPLE = Path(__file__).with_name("sample.json")


@dataclass(frozen=True)
class Texts:
    """Texts and the languages they are in, by index."""

    texts: tuple[str, ...]
    languages: tuple[int, ...]


def read_sample(path: Path = SAMPLE) -> tuple[Texts, Texts]:
    """Calibration and held-out texts. Raises DatasetError if the file is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _parse(content["calibration"]), _parse(content["held_out"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: expected calibration and held_out texts; {error!r}; install again") from error


def _parse(rows: list[str]) -> Texts:
    pairs = [row.split(" ", 1) for row in rows]
    return Texts(tuple(text for _, text in pairs), tuple(LANGUAGES.index(code) for code, _ in pairs))
