"""What trtexec measured, read from the files of `--exportTimes`, `--exportProfile` and `--exportLayerInfo`.

The formats: samples/common/sampleReporting.cpp and sampleEngines.cpp of NVIDIA/TensorRT. `perceiver-run layers` writes
files of the latter two, so that its numbers are read in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_runtime.errors import BundleError, UsageError
from perceiver_runtime.format import strict_json

SUFFIXES = ("times", "profile", "graph")


@dataclass(frozen=True)
class TrtexecTimes:
    """Milliseconds of single calls: `compute` is that of the kernels, `latency` has the copies too where there are any.

    Medians, and the 99th percentile of `compute`.
    """

    runs: int
    compute: float
    compute_p99: float
    latency: float
    enqueue: float


@dataclass(frozen=True)
class ProfiledLayer:
    """Milliseconds of one layer in a call; the median is None in files before TensorRT 8.5."""

    name: str
    mean: float
    median: float | None


@dataclass(frozen=True)
class TrtexecProfile:
    """Layers in order of execution; two can have the same name. Their sum is more than the time of a call."""

    runs: int
    layers: tuple[ProfiledLayer, ...]

    @property
    def milliseconds(self) -> float:
        """Means of all layers, added up."""
        return sum(layer.mean for layer in self.layers)


@dataclass(frozen=True)
class LayerInfo:
    """One layer of an engine: TensorRT's type and tactic; empty in files without detailed verbosity."""

    name: str
    type: str = ""
    tactic: str = ""


@dataclass(frozen=True)
class TrtexecResult:
    """All that was found of one component; None: no such file. `ours` is the profile of `perceiver-run layers`."""

    component: str
    times: TrtexecTimes | None
    profile: TrtexecProfile | None
    layers: tuple[LayerInfo, ...] | None
    ours: TrtexecProfile | None = None


def read_trtexec(directory: str | Path, ours: str | Path | None = None) -> tuple[TrtexecResult, ...]:
    """Read the files that the script of `trtexec` writes.

    Args:
        directory: Where `<component>.times.json`, `.profile.json` and `.graph.json` are.
        ours: Where `perceiver-run layers` wrote its files.

    Returns:
        One result for each component.

    Raises:
        UsageError: There is no such file.
        BundleError: A file has another form.
    """
    folder = Path(directory)
    names = sorted({path.name.removesuffix(f".{s}.json") for s in SUFFIXES for path in folder.glob(f"*.{s}.json")})
    if not names:
        raise UsageError(f"{folder}: expected COMPONENT.times.json and the like, found none; run trtexec.sh there")
    found = tuple(
        TrtexecResult(
            name,
            times=read_times(path) if (path := folder / f"{name}.times.json").exists() else None,
            profile=read_profile(path) if (path := folder / f"{name}.profile.json").exists() else None,
            layers=read_layers(path) if (path := folder / f"{name}.graph.json").exists() else None,
        )
        for name in names
    )
    if ours is None:
        return found
    paths = {result.component: Path(ours) / f"{result.component}.profile.json" for result in found}
    if not any(path.exists() for path in paths.values()):
        raise UsageError(f"{ours}: expected {names[0]}.profile.json; write it with `perceiver-run layers`")
    return tuple(
        dataclasses.replace(result, ours=read_profile(path)) if (path := paths[result.component]).exists() else result
        for result in found
    )


def read_times(path: Path) -> TrtexecTimes:
    """Read a file of `--exportTimes`. Raises BundleError."""
    records = _records(path)
    if not records:
        raise BundleError(f"{path}: no runs; measure for longer (--iterations)")
    starts, ends = _numbers(records, "startEnqMs", path), _numbers(records, "endEnqMs", path)
    compute = _numbers(records, "computeMs", path)
    latency = np.median(_numbers(records, "latencyMs", path))
    return TrtexecTimes(
        runs=len(records),
        compute=float(np.median(compute)),
        compute_p99=float(np.percentile(compute, 99)),
        latency=float(latency),
        enqueue=float(np.median(np.subtract(ends, starts))),
    )


def read_profile(path: Path) -> TrtexecProfile:
    """Read a file of `--exportProfile`. Raises BundleError."""
    records = _records(path)
    count = records[0].get("count") if records else None
    if not isinstance(count, int):
        raise BundleError(f"{path}: expected a list that begins with the count of runs; export the profile again")
    means = _numbers(records[1:], "averageMs", path)
    medians = [_number(record, "medianMs", path) if "medianMs" in record else None for record in records[1:]]
    layers = zip(records[1:], means, medians, strict=True)
    return TrtexecProfile(count, tuple(ProfiledLayer(_name(r, "name", path), mean, mid) for r, mean, mid in layers))


def read_layers(path: Path) -> tuple[LayerInfo, ...]:
    """Read a file of `--exportLayerInfo`. Raises BundleError."""
    content = _json(path)
    layers = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(layers, list):
        raise BundleError(f"{path}: expected an object with Layers; export the layer information again")
    return tuple(_layer(layer, path) for layer in layers)


def _layer(layer: Any, path: Path) -> LayerInfo:
    if isinstance(layer, str):
        return LayerInfo(layer)
    if not isinstance(layer, dict):
        raise BundleError(f"{path}: expected layers with a Name, got {layer!r:.40}; export the file again")
    kind, tactic = (str(layer.get(key) or "") for key in ("LayerType", "TacticName"))
    return LayerInfo(_name(layer, "Name", path), kind, tactic)


def _json(path: Path) -> Any:
    try:
        return strict_json.loads(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path}: no valid JSON ({error}); export the file again") from error


def _records(path: Path) -> list[dict[str, Any]]:
    content = _json(path)
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise BundleError(f"{path}: expected a list of objects, as trtexec writes it; export the file again")
    return content


def _numbers(records: Sequence[dict[str, Any]], key: str, path: Path) -> list[float]:
    return [_number(record, key, path) for record in records]


def _number(record: dict[str, Any], key: str, path: Path) -> float:
    value = record.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise BundleError(f"{path}: expected a number of {key}, got {value!r:.40}; export the file again")
    return float(value)


def _name(record: dict[str, Any], key: str, path: Path) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise BundleError(f"{path}: expected a name under {key}, got {value!r:.40}; export the file again")
    return value
