"""`python -m perceiver_deploy.datasets.fashion_mnist`: draw the shipped sample from the full set again."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.datasets.fashion_mnist.sample import SAMPLE, draw_sample, write_sample
from perceiver_deploy.datasets.fashion_mnist.source import DEBIAN_DIRECTORY
from perceiver_deploy.refusal import RefusingCommand


@click.command(cls=RefusingCommand)
@click.option("--data", type=click.Path(path_type=Path), default=DEBIAN_DIRECTORY, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=SAMPLE, show_default=True)
def main(data: Path, out: Path) -> None:
    """Draw the sample from the IDX files in DATA by its fixed seed and write it to OUT."""
    write_sample(draw_sample(data), out)
    click.echo(f"{out}: {out.stat().st_size:,} bytes", err=True)


if __name__ == "__main__":
    main()
