"""Statistics in a cache directory, by the hash of what they depend on.

An interrupted calibration is continued, a finished one reused. A file holds the statistics of one component and how
many samples they cover; all methods use the same statistics.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from perceiver_exporters.precision.calibration.histogram import Histogram
from perceiver_exporters.precision.calibration.statistics import Observed, Statistics
from perceiver_exporters.weights import samples_sha256
from perceiver_runtime.format import strict_json
from perceiver_runtime.format.outputs import replacing
from perceiver_runtime.tensors import Array

log = logging.getLogger(__name__)
SCHEMA = "2"
DIRECTORY, DISABLED = "PERCEIVER_CACHE_DIR", "PERCEIVER_NO_CACHE"


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path | None:
    """`$PERCEIVER_CACHE_DIR`, or `perceiver-deploy` in the user's cache (XDG).

    None if `$PERCEIVER_NO_CACHE` is set, or the user has no home directory.
    """
    if environment.get(DISABLED):
        return None
    if named := environment.get(DIRECTORY):
        return Path(named)
    if cache := environment.get("XDG_CACHE_HOME"):
        return Path(cache) / "perceiver-deploy"
    try:
        return Path(environment.get("HOME") or "~").expanduser() / ".cache" / "perceiver-deploy"
    except RuntimeError:  # as pathlib says it
        return None


class Store:
    """The statistics of one component in a cache directory; the key is a hash of everything they depend on."""

    def __init__(self, directory: Path, *parts: str) -> None:
        key = hashlib.sha256("\0".join((SCHEMA, *parts)).encode()).hexdigest()
        self.path = directory / "calibration" / f"{key}.safetensors"

    def load(self) -> Statistics:
        """The stored statistics; empty if there are none or, with a warning, if the file is damaged."""
        if not self.path.is_file():
            return Statistics()
        try:
            with safe_open(self.path, framework="numpy") as file:
                metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["sha256"] != _sha256(metadata["statistics"], arrays):
                raise ValueError("expected the sha256 that it was written with")
            header = strict_json.loads(metadata["statistics"])
            made = Statistics(samples=header["samples"])
            for kind, name, *numbers in header["observed"]:
                getattr(made, kind)[name] = _read(arrays, f"{kind}/{name}", *numbers)
            return made
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            log.warning("calibration cache %s is damaged, its statistics are taken again: %s", self.path, error)
            return Statistics()

    def save(self, statistics: Statistics) -> None:
        """Write the file whole or not at all."""
        arrays: dict[str, Array] = {}
        observed: list[tuple[str, str, float, float, float]] = []
        for kind in ("tensors", "sites"):
            for name, each in getattr(statistics, kind).items():
                h = each.histogram
                observed.append((kind, name, h.limit, h.low, h.high))
                arrays |= {f"{kind}/{name}/{part}": getattr(each, part) for part in ("low", "high")}
                arrays[f"{kind}/{name}/counts"] = h.counts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        header = strict_json.dumps({"samples": statistics.samples, "observed": observed}, indent=None)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        metadata = {"statistics": header, "sha256": _sha256(header, arrays)}
        with replacing(self.path, follow=False) as partial:
            partial.write_bytes(save(arrays, metadata))


def _sha256(header: str, arrays: Mapping[str, Array]) -> str:
    return hashlib.sha256(f"{header}\0{samples_sha256([arrays])}".encode()).hexdigest()


def _read(arrays: Mapping[str, Any], name: str, limit: float, low: float, high: float) -> Observed:
    histogram = Histogram(limit, low, high, arrays[f"{name}/counts"])
    return Observed(histogram, arrays[f"{name}/low"], arrays[f"{name}/high"])
