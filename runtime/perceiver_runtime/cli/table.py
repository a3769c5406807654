"""Tables of text that fit a terminal, and the same as Markdown.

A column is a string: its name, and behind a colon `<` for text (to the left; it may wrap) and `?` for a column that is
left out where the table would be too wide. Other columns hold numbers: to the right, never broken.
A cell is a string, or several for as many lines.
"""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections.abc import Callable, Sequence

from perceiver_runtime.escapes import printable

Cell = str | Sequence[str]
Draw = Callable[[Sequence[str], Sequence[Sequence[Cell]]], str]
GAP = 2
LONGEST_WORD, SHORTEST_PART = 24, 8
"""Characters: a longer word is broken where its column gets narrower; no part of a word is shorter than the second."""


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: int | None = None) -> str:
    """Columns two spaces apart under a rule, no line longer than `width` and none with blanks at its end.

    Args:
        columns: Names of the columns, with their marks.
        rows: A cell for each column.
        width: Characters; None takes the terminal's, and 80 where there is none.

    Returns:
        The lines. A table that is still too wide becomes several; the last line names columns that were left out.
    """
    width = width or terminal_width()
    names = [column.partition(":")[0] for column in columns]
    texts = ["<" in column.partition(":")[2] for column in columns]
    cells = [[_lines(cell) for cell in row] for row in rows]
    heads = [[name] for name in names]
    natural = [max(len(line) for row in (heads, *cells) for line in row[i]) for i in range(len(columns))]
    least = [
        _least(name, text, [row[i] for row in cells]) for i, (name, text) in enumerate(zip(names, texts, strict=True))
    ]
    shown = list(range(len(columns)))
    for i in [i for i, column in reversed(list(enumerate(columns))) if "?" in column.partition(":")[2]]:
        if _total([least[j] for j in shown]) > width:
            shown.remove(i)
    if (parts := _parts(shown, least, texts, width)) is not None:
        tables = [table([columns[i] for i in part], [[row[i] for i in part] for row in rows], width) for part in parts]
        return "\n\n".join((*tables, *_left_out(names, shown, width)))
    widths = _fitted({i: natural[i] for i in shown}, least, texts, width)
    blocks = [[_wrap(row[i], widths[i]) for i in shown] for row in (heads, *cells)]
    drawn = [_block(block, [widths[i] for i in shown], [texts[i] for i in shown]) for block in blocks]
    tall = sum("\n" in block for block in drawn[1:])
    apart = "\n\n" if 2 * tall > len(cells) else "\n"
    lines = [drawn[0], "  ".join("-" * widths[i] for i in shown), *([apart.join(drawn[1:])] if cells else [])]
    return "\n".join((*lines, *_left_out(names, shown, width)))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """The same table in Markdown, with all columns."""
    marks = [column.partition(":") for column in columns]
    lines = [[name for name, _, _ in marks], [":---" if "<" in mark else "---:" for _, _, mark in marks]]
    lines += [["<br>".join(_lines(cell)).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wrapped(text: str, width: int | None = None) -> str:
    """Prose in lines that fit the terminal."""
    return "\n".join(
        textwrap.fill(line, width or terminal_width(), break_on_hyphens=False) for line in printable(text).split("\n")
    )


def terminal_width() -> int:
    """Columns of the terminal; 80 if stdout is none, COLUMNS if that is set."""
    return max(shutil.get_terminal_size((80, 24)).columns, 20)


def _lines(cell: Cell) -> list[str]:
    lines = [cell] if isinstance(cell, str) else list(cell) or [""]
    return [printable(line).replace("\n", "\\n") for line in lines]


def _least(name: str, text: bool, cells: Sequence[Sequence[str]]) -> int:
    """The width of a column whose words are whole; numbers are never wrapped."""
    lines = [line for cell in cells for line in cell]
    words = [word for line in lines for word in line.split()] if text else lines
    return max(map(len, (*name.split(), *words)), default=0)


def _parts(
    shown: Sequence[int], least: Sequence[int], texts: Sequence[bool], width: int
) -> tuple[list[int], list[int]] | None:
    """Columns of two tables for one that is too wide even with broken words: both begin with its first texts."""
    floors = [min(n, SHORTEST_PART) if text else n for n, text in zip(least, texts, strict=True)]
    if _total([floors[i] for i in shown]) <= width:
        return None
    keys = list(itertools.takewhile(texts.__getitem__, shown))
    rest = list(shown[len(keys) :])
    fitting = [n for n in range(1, len(rest)) if _total([floors[i] for i in (*keys, *rest[:n])]) <= width]
    split = max(fitting, default=0)
    return (keys + rest[:split], keys + rest[split:]) if split else None


def _left_out(names: Sequence[str], shown: Sequence[int], width: int) -> list[str]:
    """A line that names the columns that are not shown, if there are any."""
    left_out = ", ".join(name for i, name in enumerate(names) if i not in shown)
    return [wrapped(f"Not shown at this width: {left_out}. --json has all.", width)] if left_out else []


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _fitted(widths: dict[int, int], least: Sequence[int], texts: Sequence[bool], width: int) -> dict[int, int]:
    """Take from the widest column until all fit: first between words, then within the longest of them."""
    for limit in range(LONGEST_WORD, SHORTEST_PART - 1, -1):
        floors = [min(n, limit) if text else n for n, text in zip(least, texts, strict=True)]
        while _total(list(widths.values())) > width and (wide := [i for i in widths if widths[i] > floors[i]]):
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _wrap(lines: Sequence[str], width: int) -> list[str]:
    if all(len(line) <= width for line in lines):
        return list(lines)
    return [part for line in lines for part in textwrap.wrap(line, width) or [""]]


def _block(cells: Sequence[Sequence[str]], widths: Sequence[int], texts: Sequence[bool]) -> str:
    """One row, whose cells may have several lines."""
    lines = []
    for n in range(max(map(len, cells))):
        parts = [cell[n] if n < len(cell) else "" for cell in cells]
        padded = [p.ljust(w) if text else p.rjust(w) for p, w, text in zip(parts, widths, texts, strict=True)]
        lines.append((" " * GAP).join(padded).rstrip())
    return "\n".join(lines)
