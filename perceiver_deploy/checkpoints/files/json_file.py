"""Reading an untrusted JSON object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perceiver_deploy.checkpoints.files.contents import check_readable, identify
from perceiver_runtime.errors import CheckpointError
from perceiver_runtime.format import strict_json

MAX_BYTES = 1 << 26
"""Of a config or a shard index: an index of a million tensors is smaller."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError for anything else, UnavailableError if this user may not read it."""
    check_readable(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path}: expected at most {MAX_BYTES:,} bytes of JSON, got {path.stat().st_size:,}")
        value = strict_json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a JSON file; {_diagnosis(path, error)}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _diagnosis(path: Path, error: Exception) -> str:
    """The kind of the file if it is not JSON; else the parser's message."""
    if isinstance(error, FileNotFoundError):
        return "there is none"
    if isinstance(error, OSError):
        return str(error)
    signature = identify(path)
    known = signature is not None and signature.kind not in ("a text", "a JSON text")
    return f"this is {signature.kind}; {signature.remedy}" if signature and known else str(error)
