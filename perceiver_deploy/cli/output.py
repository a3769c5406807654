"""Results on stdout, progress on stderr: tables where a person reads, JSON where a program does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from perceiver_deploy.cli.progress import progress_handler
from perceiver_runtime.cli.progress import progress_shown
from perceiver_runtime.cli.table import Cell, markdown, table, wrapped
from perceiver_runtime.escapes import printable

Command = TypeVar("Command", bound=Callable[..., Any])
MARKDOWN = "perceiver_deploy.markdown"


def common_options(function: Command) -> Command:
    """The options of every command: `--json`, `--markdown`, `--quiet`. The function gets `as_json`."""

    @click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
    @click.option("--markdown", "as_markdown", is_flag=True, help="Print tables as Markdown.")
    @click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
    @functools.wraps(function)
    def command(*arguments: Any, as_json: bool, as_markdown: bool, quiet: bool, **options: Any) -> Any:
        if as_json and as_markdown:
            raise click.UsageError("--markdown and --json are two forms of the same results; ask for one")
        click.get_current_context().meta[MARKDOWN] = as_markdown
        with progress_shown(None if quiet else progress_handler()):
            return function(*arguments, as_json=as_json, **options)

    return command  # type: ignore[return-value]  # the options that it takes off are click's to pass


def echo(text: str, *, err: bool = False) -> None:
    """Lines on stdout or stderr; control characters are escaped, so that names of others can't move the cursor."""
    click.echo(printable(text), err=err)


def print_json(value: Any) -> None:
    """Dataclasses, mappings and sequences as indented JSON on stdout; NaN and infinity, which JSON lacks, as null."""
    from perceiver_runtime.cli.report import to_json

    click.echo(to_json(value))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> None:
    """A table on stdout, as text or Markdown (columns: see `perceiver_runtime.cli.table`)."""
    if click.get_current_context().meta.get(MARKDOWN):
        echo("\n\n".join((markdown(columns, rows), *filter(None, (caption,)))))
    else:
        echo("\n\n".join(filter(None, (wrapped(title), table(columns, rows), wrapped(caption)))))
