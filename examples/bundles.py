"""Bundle of an example: an existing one, one exported from a checkpoint, or a small one with random weights.

With `--bundle` an example needs the runtime alone; otherwise the exporters, and with them torch.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perceiver_runtime import Session, open_session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--bundle` and `--checkpoint`; with neither, weights are random."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--bundle", type=Path, help="an existing bundle")
    source.add_argument("--checkpoint", help="export this checkpoint directory or hub id first")


@contextmanager
def opened(given: argparse.Namespace, released: str) -> Iterator[Session]:
    """A session on the bundle that the arguments name, or on a small model of the same kind as `released`."""
    with tempfile.TemporaryDirectory() as directory:
        bundle = given.bundle or _exported(given.checkpoint, released, Path(directory) / "bundle")
        with open_session(bundle) as session:
            if not session.manifest.source.pretrained:
                print("RANDOM weights: the answer means nothing. Name a model with --checkpoint or --bundle")
            yield session


def _exported(checkpoint: str | None, released: str, bundle: Path) -> Path:
    if checkpoint is None:
        from small import export_small

        export_small(released, bundle)
    else:
        from perceiver_deploy import export

        export(checkpoint, bundle)
    return bundle
