"""Tables of texts: on the page, in Markdown, and as the text alternative of a chart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

TEXT = ":<"
"""At the end of a column's name: it holds texts."""
MISSING = "not measured"
TIMES, NONE, MINUS = "\u00d7", "\u2013", "\u2212"
"""A multiplication sign, a dash, and a minus sign."""


@dataclass(frozen=True)
class Cell:
    """A text, a smaller one below it, and a tone: "missing", "good", "bad" or none."""

    text: str
    sub: str = ""
    tone: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.sub})" if self.sub else self.text


Row = tuple[Cell, ...] | str


@dataclass(frozen=True)
class Table:
    """Rows under columns of numbers, or of texts (`TEXT`).

    A row that is a text is a heading of those below it.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str = ""

    @property
    def heads(self) -> tuple[tuple[str, bool], ...]:
        """Name of each column, and whether it holds text."""
        return tuple((column.removesuffix(TEXT), column.endswith(TEXT)) for column in self.columns)

    @property
    def texts(self) -> list[list[str]]:
        """The cells as texts, without headings of rows."""
        return [[str(cell) for cell in row] for row in self.rows if not isinstance(row, str)]


def table(columns: Iterable[str], rows: Iterable[Iterable[Cell | str] | str], caption: str = "") -> Table:
    """A table whose cells may be plain texts."""
    return Table(tuple(columns), tuple(row if isinstance(row, str) else _cells(row) for row in rows), caption)


def _cells(row: Iterable[Cell | str]) -> tuple[Cell, ...]:
    return tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row)


def missing(reason: str = "") -> Cell:
    """A cell of what was not measured."""
    return Cell(MISSING, reason, "missing")


def verdict(parity: str) -> Cell:
    """A cell for `passed`, `failed`, `damaged`, or empty."""
    if not parity:
        return missing()
    return Cell("passed", tone="good") if parity == "passed" else Cell(parity.upper(), tone="bad")


def short(value: float, digits: int = 3) -> str:
    """A positive number with so many digits, with separators of thousands and without an exponent."""
    if value >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def megabytes(size: float) -> str:
    """Bytes as megabytes (10^6)."""
    return short(size / 1e6)


def signed(value: float, digits: int) -> str:
    """A difference with its sign; what rounds to zero is 0 with neither."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)
