"""Pictures, names, kinds and versions of emoji, from a font and a table of Unicode's, and their split.

`python -m zoo_training.data.emoji` draws the package's sample again.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from perceiver_deploy.datasets.emoji import LENGTH, SIZE
from perceiver_deploy.datasets.emoji.sample import SAMPLE, Splits, Table
from perceiver_deploy.refusal import RefusingCommand
from perceiver_runtime.errors import UnavailableError

STRIKE = 109
"""The font's only bitmap size; its glyphs are 136 x 128 pixels."""

SEED = 0
NEW_CONCEPTS, NEW_VARIANTS = 0.1, 0.2
FAMILIAR = 6
"""Emoji that a concept must have for one of its skin tones or hairs to be held out."""

SHIPPED = 128

_LINE = re.compile(r"^([0-9A-F ]+?)\s*; fully-qualified\s*# \S+ E(\S+) (.+)$")
_TONE = re.compile(r": .*skin tone.*$|: .*hair$|, .*skin tone$")
_SUBGROUP = "# subgroup: "


@dataclass(frozen=True)
class Emoji:
    """One emoji: its characters, name, kind (Unicode's subgroup, such as food-fruit), version, concept.

    The concept is the name without skin tone, hair and gender.
    """

    text: str
    name: str
    kind: str
    version: float
    concept: str


@dataclass(frozen=True)
class Sources:
    """Paths of the font and of emoji-test.txt."""

    font: Path
    names: Path

    def check(self) -> None:
        """Raises UnavailableError if a file is absent, naming the package that has it."""
        packages = {
            self.font: "Debian's fonts-noto-color-emoji",
            self.names: "Debian's unicode-data",
        }
        for path, package in packages.items():
            if not path.is_file():
                raise UnavailableError(f"{path}: no such file; {package} has it")


def read_emoji(path: Path) -> list[Emoji]:
    """Fully-qualified emoji of emoji-test.txt, in its order, whose name fits LENGTH bytes."""
    found, kind = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        kind = line.removeprefix(_SUBGROUP) if line.startswith(_SUBGROUP) else kind
        if (match := _LINE.match(line)) and len(match[3].encode()) <= LENGTH:
            text = "".join(chr(int(code, 16)) for code in match[1].split())
            found.append(Emoji(text, match[3], kind, float(match[2]), concept(match[3])))
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


def _pillow() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image, ImageDraw, ImageFont, features
    except ImportError as error:
        raise UnavailableError("drawing emoji needs Pillow; pip install pillow") from error
    if not features.check("raqm"):
        raise UnavailableError("drawing emoji needs Pillow with Raqm; its wheels for Linux have it")
    return Image, ImageDraw, ImageFont


def read_splits(sources: Sources) -> Splits:
    """Draw and split all emoji. Raises UnavailableError if a source or Pillow is not there."""
    sources.check()
    emoji = read_emoji(sources.names)
    versions = np.array([one.version for one in emoji], np.float32)
    names, kinds = (np.array([getattr(one, part) for one in emoji]) for part in ("name", "kind"))
    table = Table(draw(sources.font, emoji), names, kinds, versions)
    new_concept, new_variant = held_out(emoji)
    return Splits(
        training=_take(table, np.flatnonzero(~(new_concept | new_variant))),
        variants=_take(table, np.flatnonzero(new_variant)),
        concepts=_take(table, np.flatnonzero(new_concept)),
    )


def held_out(emoji: list[Emoji]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which emoji (N,) are held out with their whole concept, and which as a variant of a familiar one."""
    random = np.random.default_rng(SEED)
    counts = Counter(one.concept for one in emoji)
    names = random.permutation(sorted(counts))
    chosen = set(names[: round(NEW_CONCEPTS * len(names))].tolist())
    concept = np.array([one.concept in chosen for one in emoji])
    eligible = np.array([has_variant(one) and counts[one.concept] >= FAMILIAR for one in emoji])
    return concept, eligible & ~concept & (random.random(len(emoji)) < NEW_VARIANTS)


def shipped(splits: Splits) -> Splits:
    """As many of each split, drawn at random, as are shipped."""
    random = np.random.default_rng(SEED)
    parts = (splits.training, splits.variants, splits.concepts)
    return Splits(*(_take(part, random.permutation(len(part.names))[:SHIPPED]) for part in parts))


def write_sample(splits: Splits, path: Path) -> None:
    """Write splits as a compressed .npz."""
    arrays = {
        f"{s.name}_{t.name}": getattr(getattr(splits, s.name), t.name) for s in fields(Splits) for t in fields(Table)
    }
    np.savez_compressed(path, **arrays)


def _take(table: Table, rows: npt.NDArray[np.intp]) -> Table:
    return Table(*(getattr(table, field.name)[rows] for field in fields(table)))


@click.command(cls=RefusingCommand)
@click.option("--font", type=click.Path(path_type=Path), required=True, help="NotoColorEmoji.ttf")
@click.option("--names", type=click.Path(path_type=Path), required=True, help="Unicode's emoji-test.txt")
@click.option("--out", type=click.Path(path_type=Path), default=SAMPLE, show_default=True)
def main(font: Path, names: Path, out: Path) -> None:
    """Draw and split the emoji, and write the sample to OUT."""
    write_sample(shipped(read_splits(Sources(font, names))), out)
    click.echo(f"{out}: {out.stat().st_size:,} bytes", err=True)


if __name__ == "__main__":
    main()
