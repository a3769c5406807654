"""Ranges of a component's own symbolic dimensions, derived from how the pipeline feeds it.

A profile of the bundle has ranges for session inputs (`batch`, `keys`). A component names its dimensions itself, and a
chunked step passes it chunks; its engine needs the ranges of the sizes that it gets.
"""

from __future__ import annotations

from collections.abc import Mapping

from perceiver_runtime.format.wiring import bind_symbols, value_specs
from perceiver_runtime.manifest import ComponentEntry, Manifest
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import Dimension, Profile, Range, TensorSpec


def component_profiles(manifest: Manifest, component: ComponentEntry) -> tuple[Profile, ...]:
    """One profile for each of the bundle's, in the component's own symbols; none if its shapes are fixed.

    A symbol that no profile of the bundle bounds is left out.
    """
    symbols = {symbol for spec in component.inputs for symbol in spec.symbols}
    values = value_specs(manifest)
    steps = [step for step in manifest.pipeline.steps if step.component == component.name]
    found = (
        Profile(profile.name, _join([_ranges(step, component, values, profile) for step in steps]))
        for profile in manifest.profiles
    )
    return tuple(found) if symbols else ()


def _ranges(
    step: Step, component: ComponentEntry, values: Mapping[str, TensorSpec], profile: Profile
) -> dict[str, Range]:
    shapes: dict[str, tuple[Dimension, ...]] = {graph: values[value].shape for graph, value in step.inputs.items()}
    bound = bind_symbols(component.inputs, shapes, step.component)
    whole = {
        symbol: Range(stands, stands, stands) if isinstance(stands, int) else profile.dimensions.get(stands)
        for symbol, stands in bound.items()
    }
    if step.chunk and (total := whole.get(step.chunk.dimension)):
        whole[step.chunk.dimension] = _piece(total, step.chunk.size)
    return {symbol: found for symbol, found in whole.items() if found is not None}


def _piece(total: Range, size: int) -> Range:
    """Sizes of the chunks of a dimension; the last chunk is the remainder."""
    if total.min == total.max:
        remainder = total.max % size or size
        return Range(min(remainder, total.max), min(size, total.max), min(size, total.max))
    return Range(1, min(size, total.opt), min(size, total.max))


def _join(ranges: list[dict[str, Range]]) -> dict[str, Range]:
    """Ranges that cover every step that runs the component; the typical size is that of the first step."""
    joined: dict[str, Range] = {}
    for found in ranges:
        for symbol, new in found.items():
            old = joined.get(symbol, new)
            joined[symbol] = Range(min(old.min, new.min), old.opt, max(old.max, new.max))
    return joined
