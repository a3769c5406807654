"""A click command that prints errors and exits with their documented codes, as `perceiver-export` does."""

from __future__ import annotations

from typing import Any

import click

from perceiver_runtime.errors import typed
from perceiver_runtime.escapes import printable


class RefusingCommand(click.Command):
    """For the project's other scripts: `@click.command(cls=RefusingCommand)`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; print an error of `perceiver_runtime.errors` instead of raising it."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if (known := typed(error)) is None:
                raise
            click.echo(printable(f"error: {known}"), err=True)
            ctx.exit(known.exit_code)
