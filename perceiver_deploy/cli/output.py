"""Results on stdout, progress on stderr. Rich where a person reads, plain JSON where a program does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perceiver_runtime.escapes import printable

Progress = Callable[[str], None]

json_option = click.option("--json", "as_json", is_flag=True, help="Print results as JSON on stdout.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")


def progress(quiet: bool) -> Progress:
    """A reporter of one line per stage on stderr, or of nothing."""
    if quiet:
        return lambda _: None
    console = Console(stderr=True, highlight=False)
    return lambda line: console.print(printable(line), style="dim", markup=False)


def print_json(value: Any) -> None:
    """Dataclasses, mappings and sequences as indented JSON on stdout; NaN and infinity, which JSON lacks, as null."""
    from perceiver_runtime.cli.report import to_json

    click.echo(to_json(value))


def print_markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The same as a Markdown table on stdout."""
    names = [column.partition(":") for column in columns]
    rule = (":---" if align == "<" else "---:" for _, _, align in names)
    for row in ([name for name, _, _ in names], rule, *rows):
        click.echo(f"| {' | '.join(row)} |")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> None:
    """A table on stdout: left-aligned first columns of names, right-aligned numbers."""
    title, caption = escape(printable(title)), escape(printable(caption))
    table = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left", show_edge=False)
    for column in columns:
        name, _, align = column.partition(":")
        table.add_column(name, justify="left" if align == "<" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console = Console(highlight=False)
    natural = console.measure(table, options=console.options.update(width=10_000)).maximum
    console.width = max(console.width, natural)  # a narrow window may break lines; no number is ever cut
    console.print(table)
