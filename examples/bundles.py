"""The bundle an example runs: one that is there, one exported of a checkpoint, or a small one of random weights.

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
    """`--bundle` or `--checkpoint`; neither of them means random weights."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--bundle", type=Path, help="a bundle that was exported before")
    source.add_argument("--checkpoint", help="export this checkpoint directory or hub id first")


@contextmanager
def opened(given: argparse.Namespace, released: str) -> Iterator[Session]:
    """A session of the bundle that the arguments name, or of a small model like the released one."""
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

        export(checkpoint, bundle, progress=print)
    return bundle
