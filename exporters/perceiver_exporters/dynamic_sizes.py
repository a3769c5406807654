"""Dynamic sizes other than the family's own: profile, chunk sizes, and golden inputs that fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from perceiver_exporters.component import Blueprint
from perceiver_exporters.memory.estimate import with_chunks
from perceiver_exporters.reference import Feeds
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format import ranges as runtime_ranges
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.pipeline import Pipeline
from perceiver_runtime.tensors import Profile, Range


def with_ranges(blueprint: Blueprint, ranges: Mapping[str, Range]) -> Blueprint:
    """A blueprint with other ranges of its dynamic dimensions.

    The chunk size is the OPT of the chunked dimension. Golden rows beyond the largest batch become further samples,
    too few rows for the smallest are repeated; other dimensions are cut to their largest size.

    Args:
        blueprint: The model with its own ranges.
        ranges: New ranges by dimension.

    Raises:
        UsageError: Unknown dimension, range outside the model's, or golden inputs smaller than a range.
    """
    own = blueprint.cut.profile
    # Any model takes any batch; other dimensions are bounded by positions, or by what the model was made for.
    profile = runtime_ranges.with_ranges(own, ranges, extensible=(BATCH,))
    chunks = {step.chunk.dimension: step.chunk.size for step in blueprint.cut.pipeline.steps if step.chunk}
    for name in chunks.keys() & ranges:
        if ranges[name].min != (low := own.dimensions[name].min):
            raise UsageError(f"range {name}={ranges[name]}: the last chunk holds what remains; expected MIN {low}")
    cut = with_chunks(blueprint.cut, chunks | {name: r.opt for name, r in ranges.items() if name in chunks})
    golden = tuple(each for feeds in blueprint.golden for each in _fit(feeds, cut.pipeline, profile))
    return dataclasses.replace(blueprint, cut=cut.resized(profile), golden=golden)


def _fit(feeds: Feeds, pipeline: Pipeline, profile: Profile) -> Iterator[Feeds]:
    """Samples whose sizes are in the profile."""
    shapes = {spec.name: spec.shape for spec in pipeline.inputs if spec.name in feeds}
    cut = dict(feeds)
    for name, shape in shapes.items():
        for axis, symbol in enumerate(shape):
            if symbol == BATCH or symbol not in profile.dimensions:
                continue
            bounds, size = profile.dimensions[str(symbol)], cut[name].shape[axis]
            if size < bounds.min:
                raise UsageError(f"range {symbol}={bounds}: {name} of the golden inputs has {size}; allow fewer")
            if size > bounds.max:
                cut[name] = cut[name].take(np.arange(bounds.max), axis)
    yield from _split(cut, shapes, profile.dimensions.get(BATCH))


def _split(feeds: Feeds, shapes: Mapping[str, tuple[int | str, ...]], bounds: Range | None) -> Iterator[Feeds]:
    """Split along the batch, at most its largest size each."""
    axes = {name: shape.index(BATCH) for name, shape in shapes.items() if BATCH in shape}
    rows = max((feeds[name].shape[axis] for name, axis in axes.items()), default=0)
    if bounds is None or rows in bounds or not rows:
        yield feeds
        return
    for start in range(0, rows, bounds.max):
        taken = np.arange(start, max(min(start + bounds.max, rows), start + bounds.min)) % rows
        yield {n: array.take(taken, axes[n]) if n in axes else array for n, array in feeds.items()}
