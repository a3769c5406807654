"""`open_data`: a source of samples from what a user names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from perceiver_deploy.data.code import records_in, records_of
from perceiver_deploy.data.files import Archive, Archives
from perceiver_deploy.data.images import FlowPairs, ImageFolder, flow_pairs
from perceiver_deploy.data.source import Source
from perceiver_deploy.data.tables import Table
from perceiver_deploy.sources.code import load_function, names_code
from perceiver_runtime.errors import DatasetError, UsageError

FILES: Mapping[str, Callable[[Path], Source]] = {".npz": Archive, ".csv": Table, ".jsonl": Table, ".ndjson": Table}
KINDS = (
    "an .npz file, a directory of them, a folder of images with one subfolder per class, a CSV or JSON lines file of "
    "text and label, a directory of frames with flow, or file.py:function"
)


def open_data(data: object, code_sha256: str | None = None) -> Source:
    """The source that a user names. Nothing is read beyond the names of files.

    Args:
        data: A path, `file.py:function`, an iterable of dicts, or a function that returns one.
        code_sha256: Hash that the user's file must have, where a bundle records one.

    Returns:
        The source.

    Raises:
        UsageError: It is none of these, or the code is another than recorded.
        DatasetError: A file or directory of no known kind.
    """
    if not isinstance(data, str | os.PathLike):
        return records_in(data)
    text = os.fspath(data)
    path = Path(text)
    if not path.exists() and isinstance(text, str) and names_code(text):
        return records_of(load_function(text, code_sha256))
    if path.is_dir():
        return _directory(path)
    if not path.exists():
        raise UsageError(f"data (--data): expected {KINDS}, got {text!r:.200}: no such file or directory")
    if (kind := FILES.get(path.suffix.lower())) is None:
        raise DatasetError(f"{path}: expected {KINDS}, got a file that ends in {path.suffix or 'nothing'}")
    return kind(path)


def _directory(path: Path) -> Source:
    if any(path.glob("*.npz")):
        return Archives(path)
    if pairs := flow_pairs(path):
        return FlowPairs(path, pairs)
    images = ImageFolder(path)
    if images.classes:
        return images
    raise DatasetError(f"{path}: expected {KINDS}, got a directory without any of these")
