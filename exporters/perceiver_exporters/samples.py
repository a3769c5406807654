"""Golden samples: real inputs with the reference's FP64 outputs, stored in the types of the specs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from perceiver_exporters.component import Cut
from perceiver_exporters.reference import Reference, complete
from perceiver_runtime.golden import SAME, ComponentCall, GoldenSample, sample_path
from perceiver_runtime.tensors import Array, TensorSpec


def make_samples(cut: Cut, feeds: Iterable[Mapping[str, Array]]) -> tuple[GoldenSample, ...]:
    """Run the reference in FP64 on each feed.

    A component's outputs are computed from its inputs as stored, so that they match exactly.
    """
    exact = Reference(cut, torch.float64)
    return tuple(_sample(cut, exact, sample) for sample in feeds)


def save_samples(samples: tuple[GoldenSample, ...], directory: Path) -> tuple[str, ...]:
    """Write one file per sample, and return their paths inside the bundle."""
    paths = tuple(sample_path(i) for i in range(len(samples)))
    for path, sample in zip(paths, samples, strict=True):
        (directory / path).parent.mkdir(exist_ok=True)
        tensors, same = _store_once(sample.tensors())
        metadata = {SAME: json.dumps(same, sort_keys=True)} if same else None
        (directory / path).write_bytes(save(tensors, metadata))  # `save_file` lets no other user read it
    return paths


def _store_once(tensors: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """Distinct tensors by their first key, and that key by each other one."""
    stored: dict[str, Array] = {}
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for key, tensor in tensors.items():
        array = np.ascontiguousarray(tensor)
        known = first.setdefault((array.dtype.name, array.shape, sha256(array.data).digest()), key)
        if known == key:
            stored[key] = array
        else:
            same[key] = known
    return stored, same


def _sample(cut: Cut, exact: Reference, feeds: Mapping[str, Array]) -> GoldenSample:
    given = complete(cut.pipeline, feeds)
    trace = exact.run(given)
    components = {}
    for component in cut.components:
        inputs = _stored(component.inputs, trace.first[component.name].inputs)
        components[component.name] = ComponentCall(
            component.name, inputs, _stored(component.outputs, exact.apply(component.name, inputs))
        )
    shown = sorted(cut.pipeline.shown.items())
    values = {name: _stored_value(cut, value, trace.values[value]) for name, value in shown}
    return GoldenSample(given, values, components)


def _stored(specs: tuple[TensorSpec, ...], arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {spec.name: arrays[spec.name].astype(spec.dtype) for spec in specs}


def _stored_value(cut: Cut, value: str, array: Array) -> Array:
    """The value in the type of the graph output that computes it."""
    for step in cut.pipeline.steps:
        for output, name in step.outputs.items():
            if name == value:
                spec = next(s for s in cut.component(step.component).outputs if s.name == output)
                return array.astype(spec.dtype)
    raise KeyError(value)
