"""Subpipeline: the steps that one method of a session runs, with their inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.format.wiring import value_specs
from perceiver_runtime.manifest import ComponentEntry, Manifest
from perceiver_runtime.pipeline import Generation, Step
from perceiver_runtime.tensors import Profile, TensorSpec, ValueRange

MAX_FLOAT = 1 << 64
"""Its square overflows FP32, so that a normalisation of larger numbers gives NaN."""


@dataclass(frozen=True, eq=False)
class Subpipeline:
    """Steps with the inputs they read. Inputs in `accepted` may also be given; they are checked and ignored.

    `outputs` describe values, by the names that they are shown under. `defaults` fill inputs that are not given. Sizes
    must lie in one of `profiles` (none: any size).
    """

    title: str
    steps: tuple[Step, ...]
    inputs: tuple[TensorSpec, ...]
    accepted: tuple[TensorSpec, ...]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, float]
    profiles: tuple[Profile, ...]

    @cached_property
    def specs(self) -> Mapping[str, tuple[TensorSpec, np.dtype[np.generic]]]:
        """All accepted inputs by name, with their types."""
        return {spec.name: (spec, np.dtype(spec.dtype)) for spec in (*self.accepted, *self.inputs)}

    @cached_property
    def ranges(self) -> Mapping[str, ValueRange]:
        """Allowed values of integer inputs, by name."""
        return {n: spec.range for n, (spec, dtype) in self.specs.items() if spec.range and dtype.kind in "iu"}

    @cached_property
    def finite_ranges(self) -> Mapping[str, ValueRange]:
        """Allowed values of floating-point inputs if a session checks them, by name."""
        return {n: spec.range or _finite(dtype) for n, (spec, dtype) in self.specs.items() if dtype.kind == "f"}


class Subpipelines:
    """The subpipelines of a bundle, each made once."""

    def __init__(self, manifest: Manifest) -> None:
        self.run = lru_cache(16)(lambda names: for_run(manifest, names))
        self.decode = lru_cache(16)(lambda names: for_decode(manifest, names))
        self.encode = lru_cache(1)(lambda: for_encode(manifest))

    def joined(self, encoded: Mapping[str, Any], feeds: Mapping[str, Any] | None) -> dict[str, Any]:
        """Encoded values and further feeds of `decode`. Raises FeedError for one given twice."""
        feeds = {} if feeds is None else feeds
        for given in (encoded, feeds):
            check_mapping("decode", given)
        if both := sorted(set(encoded) & set(feeds)):
            raise FeedError(f"decode: {', '.join(both)} given twice: among the encoded values and among the feeds")
        return {**encoded, **feeds}


def check_mapping(what: str, feeds: object) -> None:
    """Raise FeedError unless `feeds` is a mapping."""
    if not isinstance(feeds, Mapping):
        raise FeedError(f"{what}: expected arrays by name, as {{'name': array}}, got {type(feeds).__name__}")


def _finite(dtype: np.dtype[np.generic]) -> ValueRange:
    largest = min(MAX_FLOAT, int(np.finfo(dtype).max))  # type: ignore[type-var]
    return ValueRange(-largest, largest)


def for_run(manifest: Manifest, outputs: Iterable[str] | None) -> Subpipeline:
    """Steps from session inputs to the named outputs (None: all)."""
    pipeline = manifest.pipeline
    values = value_specs(manifest)
    wanted = _choose({spec.name: values[pipeline.shown[spec.name]] for spec in pipeline.outputs}, outputs)
    return _subpipeline("run", manifest, pipeline.needed(_names(wanted)), wanted, values)


def for_encode(manifest: Manifest) -> Subpipeline:
    """Steps from session inputs to the encoded values."""
    pipeline, values = manifest.pipeline, value_specs(manifest)
    wanted = {name: values[name] for name in pipeline.encoded}
    steps = tuple(s for s in pipeline.needed(frozenset(pipeline.encoded)) if s.stage == "encode")
    return _subpipeline("encode", manifest, steps, wanted, values)


def for_decode(manifest: Manifest, outputs: Iterable[str] | None) -> Subpipeline:
    """Steps from encoded values and further session inputs to the named outputs (None: all of the decode stage)."""
    pipeline = manifest.pipeline
    values = value_specs(manifest)
    decoded = {value for step in pipeline.steps if step.stage == "decode" for value in step.outputs.values()}
    made = {spec.name: values[value] for spec in pipeline.outputs if (value := pipeline.shown[spec.name]) in decoded}
    wanted = _choose(made, outputs)
    steps = tuple(s for s in pipeline.needed(_names(wanted)) if s.stage == "decode")
    return _subpipeline("decode", manifest, steps, wanted, values)


def for_generation(manifest: Manifest, generation: Generation) -> Subpipeline:
    """Steps from session inputs to the initial state of a generation: what its step reads besides the token."""
    values = value_specs(manifest)
    read = [v for v in manifest.pipeline.step(generation.component).inputs.values() if v != generation.token]
    steps = manifest.pipeline.needed(frozenset(read))
    return _subpipeline("generate", manifest, steps, {name: values[name] for name in read}, values)


def for_component(component: ComponentEntry) -> Subpipeline:
    """One call of one component on its own graph inputs, at any size."""
    inputs = {spec.name: spec.name for spec in component.inputs}
    outputs = {spec.name: spec.name for spec in component.outputs}
    step = Step(component.name, inputs, outputs, "encode")
    return Subpipeline(component.name, (step,), component.inputs, (), {s.name: s for s in component.outputs}, {}, ())


def _subpipeline(
    title: str,
    manifest: Manifest,
    steps: tuple[Step, ...],
    outputs: Mapping[str, TensorSpec],
    values: Mapping[str, TensorSpec],
) -> Subpipeline:
    pipeline = manifest.pipeline
    read = _read_first(steps)
    accepted = list(pipeline.inputs)
    if title == "decode":
        accepted += [values[name] for name in pipeline.encoded]
    inputs = tuple(values[name] for name in read)
    return Subpipeline(title, steps, inputs, tuple(accepted), outputs, pipeline.defaults, manifest.profiles)


def _read_first(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """Values that steps read and no earlier step writes: the required inputs."""
    made: set[str] = set()
    read: dict[str, None] = {}
    for step in steps:
        read |= dict.fromkeys(value for value in step.inputs.values() if value not in made)
        made |= set(step.outputs.values())
    return tuple(read)


def _names(outputs: Mapping[str, TensorSpec]) -> frozenset[str]:
    return frozenset(spec.name for spec in outputs.values())


def _choose(known: Mapping[str, TensorSpec], names: Iterable[str] | None) -> Mapping[str, TensorSpec]:
    if names is None:
        return known
    chosen = list(names)
    if unknown := [name for name in chosen if name not in known]:
        raise UsageError(f"output {', '.join(unknown)}; expected some of {', '.join(known)}")
    return {name: known[name] for name in chosen}
