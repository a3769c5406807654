"""A command whose refusals end the process with their documented exit code."""

from __future__ import annotations

from typing import Any

import click

from perceiver_runtime.errors import PerceiverError


class RefusingCommand(click.Command):
    """For the scripts beside `perceiver-export`: `@click.command(cls=RefusingCommand)`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a PerceiverError is printed, not raised."""
        try:
            return super().invoke(ctx)
        except PerceiverError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
