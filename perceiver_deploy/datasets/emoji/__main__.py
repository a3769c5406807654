"""`python -m perceiver_deploy.datasets.emoji`: draw the shipped sample again."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.datasets.emoji.sample import SAMPLE, read_splits, shipped, write_sample
from perceiver_deploy.datasets.emoji.source import Sources
from perceiver_deploy.refusal import RefusingCommand


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
