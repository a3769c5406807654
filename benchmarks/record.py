"""Shared by the benchmarks: bundles, interleaved timing, and records with their machine and versions.

A record is `benchmarks/results/NAME.json`; `benchmarks/tables.py` makes the tables of the documents from them.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.precision.options import DEFAULTS, QuantizationOptions
from perceiver_runtime.benchmark.statistics import Ratio, ratio
from perceiver_runtime.benchmark.timing import Call, interleave
from perceiver_runtime.format.schema import encode
from perceiver_runtime.machine import instructions, machine

import onnxruntime

REDUCED = QuantizationOptions(reduce_range=True)
VARIANTS: Mapping[str, tuple[str, QuantizationOptions]] = {
    "int8-attention": ("int8", QuantizationOptions(attention=True)),
    "int8-reduced": ("int8", REDUCED),
    "int8-dynamic-reduced": ("int8-dynamic", REDUCED),
}
"""Precisions with options, under names of their own."""

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "transformers", "numpy")


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant: median milliseconds, and how many times faster it is than each of its references."""

    variant: str
    milliseconds: float
    ratios: Mapping[str, Ratio]


def compare(
    calls: Mapping[str, Call],
    references: tuple[str, ...],
    rounds: int,
    groups: Mapping[str, Collection[str]] | None = None,
    warmup: int = 1,
) -> list[Row]:
    """Time the calls in turn, and compare them with `references` and with the fastest of each group."""
    times = interleave(calls, rounds, warmup)
    return [Row(name, float(np.median(times[name])), each) for name, each in ratios(times, references, groups).items()]


def ratios(
    times: Mapping[str, Sequence[float]],
    references: Sequence[str],
    groups: Mapping[str, Collection[str]] | None = None,
) -> dict[str, dict[str, Ratio]]:
    """Of each variant: reference time / its time, round by round.

    The member of a group that has the least median is one more reference, called `GROUP (MEMBER)`.
    """
    chosen = {name: name for name in references if name in times}
    for group, members in (groups or {}).items():
        if measured := [name for name in times if name in members]:
            best = min(measured, key=lambda name: float(np.median(times[name])))
            chosen[f"{group} ({best})"] = best
    return {
        name: {label: ratio(times[r], each) for label, r in chosen.items() if r != name} for name, each in times.items()
    }


def write(name: str, content: Mapping[str, Any]) -> Path:
    """Record a result with the machine, its load before the run, and the versions."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    stated = {"date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "machine": described(), "versions": versions()}
    path.write_text(json.dumps({**stated, **encode(content)}, indent=2) + "\n", encoding="utf-8")
    print(f"{path}", flush=True)
    return path


def described() -> dict[str, Any]:
    """The machine, and what of its instructions decides about speed."""
    return {
        "name": machine(),
        "instructions": list(instructions()),
        "load": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that are compared."""
    installed = {d.name: d.version for d in metadata.distributions()}
    installed["onnxruntime"] = onnxruntime.__version__  # of whichever of its packages
    return {name: installed[name] for name in PACKAGES if name in installed}


def random_weights(model: Model) -> Model:
    """Give biases and normalisations values that a trained model could have: a fresh model's are all 0 and 1."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.module.requires_grad_(False)
    return model


def bundles(model: Model, directory: Path, variants: tuple[str, ...]) -> dict[str, Path]:
    """A bundle of each variant, which is a precision or one of VARIANTS.

    Without real data INT8 takes its ranges from the golden inputs: speed only.
    """
    made, traces = _calibrated(blueprint(model)), SharedTraces()
    paths = {variant: directory / f"{model.name}-{variant}" for variant in variants}
    for variant, path in paths.items():
        if not path.exists():
            precision, options = VARIANTS.get(variant, (variant, DEFAULTS))
            export_bundle(made, path, precision, tracer=traces, quantization=options)
    return paths


def markdown(rows: list[Row]) -> str:
    """A table of rows."""
    fullest = sorted(rows, key=lambda row: -len(row.ratios))  # a reference has no ratio to itself
    names = list(dict.fromkeys(r for row in fullest for r in row.ratios))
    head = f"| Variant | ms | {' | '.join(f'times faster than {n}' for n in names)} |"
    lines = [head, f"|---|---:|{'---:|' * len(names)}"]
    lines += [
        f"| {row.variant} | {row.milliseconds:.3g} | {' | '.join(str(row.ratios.get(n, '')) for n in names)} |"
        for row in rows
    ]
    return "\n".join(lines)


def _calibrated(made: Blueprint) -> Blueprint:
    return made if made.calibration else dataclasses.replace(made, calibration=made.golden)
