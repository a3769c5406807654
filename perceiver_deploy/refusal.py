"""A command whose refusals end the process with their documented exit code."""

from __future__ import annotations

from typing import Any

import click

from perceiver_runtime.errors import typed


class RefusingCommand(click.Command):
    """For the scripts beside `perceiver-export`: `@click.command(cls=RefusingCommand)`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that a user can meet is printed, not raised."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if (known := typed(error)) is None:
                raise
            click.echo(f"error: {known}", err=True)
            ctx.exit(known.exit_code)
