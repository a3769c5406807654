"""Identification of files by their first bytes, for messages on weight files that are none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.errors import typed

FIRST_BYTES = 1024


@dataclass(frozen=True)
class Signature:
    """A kind of file: its first bytes, its name, and a remedy."""

    pattern: re.Pattern[bytes]
    kind: str
    remedy: str


def _signature(pattern: bytes, kind: str, remedy: str) -> Signature:
    return Signature(re.compile(pattern, re.DOTALL), kind, remedy)


AGAIN = "copy or download it again"
SAVE = "save the model's state dict as model.safetensors"
FROM_PT = "load it there, and save it with transformers' save_pretrained, or as model.safetensors"

SIGNATURES: Sequence[Signature] = (
    _signature(rb"\Z", "an empty file", AGAIN),
    _signature(
        rb"version https://git-lfs",
        "a Git LFS pointer, not the weights",
        "run `git lfs pull`, or download the file",
    ),
    _signature(rb"\s*<(!doctype|html|head|body|\?xml|error)", "a web page or XML", f"the download failed: {AGAIN}"),
    _signature(rb".{8}\{[\s\x00]*\"", "a safetensors file", "name it model.safetensors"),
    _signature(rb"GGUF", "a GGUF file", SAVE),
    _signature(rb"\x08[\x01-\x20]\x12.", "an ONNX graph", "give the PyTorch weights that it was made from"),
    _signature(rb"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, TensorFlow)", FROM_PT),
    _signature(rb"\x93NUMPY", "a NumPy array", SAVE),
    _signature(rb"PK\x03\x04", "a ZIP archive", f"{SAVE}, or unpack it"),
    _signature(rb"PK\x05\x06", "an empty ZIP archive", AGAIN),
    _signature(rb".{257}ustar", "a tar archive", "unpack it"),
    _signature(rb"\x1f\x8b|\x28\xb5\x2f\xfd|\xfd7zXZ|BZh|7z\xbc\xaf", "a compressed file", "unpack it"),
    _signature(rb"\x80[\x02-\x05]", "a pickle", SAVE),
    _signature(rb"([\x81-\x8f]|\xde..|\xdf.{4})[\xa0-\xbf\xd9]", "a MessagePack file (Flax)", FROM_PT),
    _signature(rb"\s*[\{\[]", "a JSON text", AGAIN),
    _signature(rb"\x00{64}", "a file of zeros", AGAIN),
    _signature(rb"[\t\n\r\x20-\x7e]{16}", "a text", AGAIN),
)
"""The first match is the kind."""


def check_readable(path: Path) -> None:
    """Raise UnavailableError for a file without read permission, which its reader would call damaged or absent."""
    try:
        path.open("rb").close()
    except PermissionError as error:
        raise typed(error) or error from error
    except OSError:
        return  # for the reader to say


def identify(path: Path) -> Signature | None:
    """The kind of a file, if known. Raises OSError if it can't be read."""
    with path.open("rb") as file:
        start = file.read(FIRST_BYTES)
    lowered = start.lower() if start.lstrip()[:1] == b"<" else start
    return next((s for s in SIGNATURES if s.pattern.match(lowered)), None)
