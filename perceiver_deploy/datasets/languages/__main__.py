"""`python -m perceiver_deploy.datasets.languages`: draw the shipped sample from Django's catalogues again."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.datasets.languages.sample import SAMPLE, read_splits, write_sample
from perceiver_deploy.refusal import RefusingCommand


@click.command(cls=RefusingCommand)
@click.option("--django", type=click.Path(path_type=Path), required=True, help="The django folder of its wheel.")
@click.option("--out", type=click.Path(path_type=Path), default=SAMPLE, show_default=True)
def main(django: Path, out: Path) -> None:
    """Draw the sample from the message catalogues under DJANGO and write it to OUT."""
    write_sample(read_splits(django), out)
    click.echo(f"{out}: {out.stat().st_size:,} bytes", err=True)


if __name__ == "__main__":
    main()
