"""Labelled texts from Django's compiled message catalogues (a wheel's `django` folder), and their split.

`python -m zoo_training.data.languages` draws the package's sample again.
"""

from __future__ import annotations

import gettext
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from perceiver_deploy.datasets.languages import LANGUAGES
from perceiver_deploy.datasets.languages.sample import SAMPLE, Texts
from perceiver_deploy.refusal import RefusingCommand
from perceiver_runtime.errors import UnavailableError

FOLDERS = {"pt": "pt_BR"}
"""Catalogue folders that are not called by their language."""

SHORTEST = 12
"""Characters that a text must have: less is a word or two, often the same in several languages."""

OVERLAP = 0.5
"""Share of common words from which two messages count as nearly the same."""

HELD_OUT_SHARE = 0.2
CALIBRATION_SIZE = 384
SEED = 0

_PLACEHOLDER = re.compile(r"%\(\w+\)\w|%\w|\{\w*\}|<[^>]*>|&\w+;")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class LabelledText:
    """One text, its language's index, and the number of the group of messages that it belongs to."""

    text: str
    language: int
    group: int


@dataclass(frozen=True)
class Splits:
    """Texts of disjoint groups of messages; no held-out text occurs in training."""

    training: Texts
    held_out: Texts


def read_texts(django: Path) -> tuple[LabelledText, ...]:
    """All texts of all languages under a `django` package folder. Raises UnavailableError if it has none."""
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for index, language in enumerate(LANGUAGES):
        for message, translation in _catalogue(django, language):
            texts[message][LANGUAGES[index]] = translation
    if not texts:
        raise UnavailableError(
            f"{django}: expected Django's message catalogues (conf/locale/*/LC_MESSAGES/django.mo); "
            "unpack the wheel of Django 5.2 and name its django folder"
        )
    groups = group_messages(sorted(texts))
    shared = _in_several_languages(texts.values())
    return tuple(
        LabelledText(text, LANGUAGES.index(language), groups[message])
        for message, by_language in sorted(texts.items())
        for language, text in sorted(by_language.items())
        if text not in shared
    )


def split(texts: Iterable[LabelledText], held_out: float, seed: int) -> tuple[list[LabelledText], list[LabelledText]]:
    """Training and held-out texts; whole groups of messages go to one side."""
    texts = list(texts)
    order = np.random.default_rng(seed).permutation(max(t.group for t in texts) + 1)
    chosen = set(order[: round(held_out * len(order))].tolist())
    return [t for t in texts if t.group not in chosen], [t for t in texts if t.group in chosen]


def group_messages(messages: list[str]) -> dict[str, int]:
    """Number the groups of messages that are nearly the same: those joined by a chain of overlapping wordings."""
    words = {m: frozenset(re.findall(r"\w+", _PLACEHOLDER.sub(" ", m).lower())) for m in messages}
    parent = {m: m for m in messages}

    def root(message: str) -> str:
        while parent[message] != message:
            message = parent[message]
        return message

    for i, a in enumerate(messages):
        for b in messages[:i]:
            if len(words[a] & words[b]) > OVERLAP * len(words[a] | words[b]) or words[a] == words[b]:
                parent[root(a)] = root(b)
    numbers: dict[str, int] = {}
    return {m: numbers.setdefault(root(m), len(numbers)) for m in messages}


def _catalogue(django: Path, language: str) -> list[tuple[str, str]]:
    """Messages and their texts in one language; English is the messages themselves."""
    folder = "de" if language == "en" else FOLDERS.get(language, language)
    found: dict[str, str] = {}
    for path in sorted(django.glob(f"**/locale/{folder}/LC_MESSAGES/django.mo")):
        with path.open("rb") as file:
            catalogue: Mapping[object, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        for key, translation in catalogue.items():
            message = key[0] if isinstance(key, tuple) else key
            message = str(message).rpartition("\x04")[2]
            text = clean(message if language == "en" else translation)
            if message and len(text) >= SHORTEST and (language == "en" or text != clean(message)):
                found.setdefault(message, text)
    return sorted(found.items())


def clean(text: str) -> str:
    """The text without placeholders, mark-up and runs of spaces."""
    return _SPACE.sub(" ", _PLACEHOLDER.sub(" ", text)).strip()


def _in_several_languages(texts: Iterable[Mapping[str, str]]) -> frozenset[str]:
    seen: dict[str, set[str]] = defaultdict(set)
    for by_language in texts:
        for language, text in by_language.items():
            seen[text].add(language)
    return frozenset(text for text, languages in seen.items() if len(languages) > 1)


def read_splits(django: Path) -> Splits:
    """The splits that the shipped model is trained and scored on. Raises what `read_texts` raises."""
    training, held_out = split(read_texts(django), HELD_OUT_SHARE, SEED)
    known = {one.text for one in training}
    return Splits(_texts(training), _texts([one for one in held_out if one.text not in known]))


def write_sample(splits: Splits, path: Path) -> None:
    """Write the shipped sample: one line a text, its language's code first."""
    chosen = np.random.default_rng(SEED).permutation(len(splits.training.texts))[:CALIBRATION_SIZE]
    calibration = Texts(
        tuple(splits.training.texts[i] for i in chosen), tuple(splits.training.languages[i] for i in chosen)
    )
    content = {name: _rows(part) for name, part in (("calibration", calibration), ("held_out", splits.held_out))}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def _texts(labelled: list[LabelledText]) -> Texts:
    return Texts(tuple(one.text for one in labelled), tuple(one.language for one in labelled))


def _rows(texts: Texts) -> list[str]:
    return [f"{LANGUAGES[i]} {text}" for i, text in zip(texts.languages, texts.texts, strict=True)]


@click.command(cls=RefusingCommand)
@click.option("--django", type=click.Path(path_type=Path), required=True, help="The django folder of its wheel.")
@click.option("--out", type=click.Path(path_type=Path), default=SAMPLE, show_default=True)
def main(django: Path, out: Path) -> None:
    """Draw the sample from the message catalogues under DJANGO and write it to OUT."""
    write_sample(read_splits(django), out)
    click.echo(f"{out}: {out.stat().st_size:,} bytes", err=True)


if __name__ == "__main__":
    main()
