"""The fastest setting for a bundle on one kind of machine, as measured by `perceiver-export export --tune`.

It is stored in a file next to the bundle, and valid for the same bundle, kind of machine and versions of the backend.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.errors import BundleError
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.outputs import replacing
from perceiver_runtime.machine import machine
from perceiver_runtime.manifest import MANIFEST_NAME


@dataclass(frozen=True)
class Measured:
    """Median milliseconds of one run; `ratio` is the median over rounds of this time / the fastest setting's."""

    backend: str
    threads: int
    versions: Mapping[str, str]
    milliseconds: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Tuning:
    """All settings measured, fastest first, on the bundle with this manifest."""

    manifest_sha256: str
    machine: str
    measured: tuple[Measured, ...]

    @property
    def winner(self) -> Measured:
        """What `open_session(backend="auto")` takes."""
        return self.measured[0]


def tuning_path(bundle: Path) -> Path:
    """Path of the tuning of the bundle in a directory."""
    real = Path(os.path.realpath(bundle))  # unlike `resolve`, it takes a link to itself too
    return real.with_name(f"{real.name}.tuning.json")


def manifest_sha256(bundle: Path) -> str:
    """What ties a tuning to a bundle."""
    return hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()


def write_tuning(bundle: Path, measured: tuple[Measured, ...]) -> Tuning:
    """Record settings, fastest first, as measured here."""
    tuning = Tuning(manifest_sha256(bundle), machine(), measured)
    with replacing(tuning_path(bundle), follow=False) as partial:
        partial.write_text(strict_json.dumps(schema.encode(tuning)) + "\n", encoding="utf-8")
    return tuning


def read_tuning(bundle: Path) -> Tuning | None:
    """The tuning of a bundle, or None if there is none that is valid here. Raises BundleError if it can't be read."""
    path = tuning_path(bundle)
    if not path.is_file():
        return None
    try:
        content = strict_json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: no valid JSON ({error}); remove it, or tune again") from error
    tuning = schema.decode(Tuning, content, str(path))
    if not tuning.measured:
        raise BundleError(f"{path}: expected at least one measured setting; remove it, or tune again")
    same = (tuning.manifest_sha256, tuning.machine) == (manifest_sha256(bundle), machine())
    return tuning if same else None
