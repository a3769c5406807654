"""`python -m zoo_training`: reproduce the shipped checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from perceiver_deploy.refusal import RefusingCommand
from zoo_training.data.fashion_mnist import DEBIAN_DIRECTORY
from zoo_training.fashion import train_fashion
from zoo_training.recipe import TRAINING


@click.command(cls=RefusingCommand)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory of the checkpoint.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=DEBIAN_DIRECTORY,
    show_default=True,
    help="Directory of Fashion-MNIST's four .gz files.",
)
@click.option("--seed", type=int, default=TRAINING.seed, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=TRAINING.epochs, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), help="Train this many steps only, the schedule included.")
@click.option("--threads", type=click.IntRange(min=1), default=TRAINING.threads, show_default=True)
def main(out: Path, data: Path, seed: int, epochs: int, steps: int | None, threads: int) -> None:
    """Train the shipped image classifier on Fashion-MNIST and write its checkpoint to --out."""
    config = replace(TRAINING, seed=seed, epochs=epochs, steps=steps, threads=threads)
    outcome = train_fashion(data, out, config, lambda line: click.echo(line, err=True))
    click.echo(
        f"{outcome.parameters:,} parameters, {outcome.seconds:.0f} s: accuracy {outcome.test_accuracy:.4f} on 10,000 "
        f"test images, {outcome.sample_accuracy:.4f} on the 2,000 shipped"
    )


if __name__ == "__main__":
    main()
