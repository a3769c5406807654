"""How much memory a run will need, before anything is traced, and the chunks that keep it within a limit.

Each component is run on shapes alone (the meta device), and the tensors that live at the same time are added up. A
runtime holds the weights, the values between the steps, and for every component what it once needed: sessions keep
their buffers for the next run.
"""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from perceiver_exporters.component import Component, Cut
from perceiver_exporters.shapes import Shape, step_shapes, value_bytes
from perceiver_runtime.errors import UsageError
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import Range

PROCESS = 100_000_000
"""Bytes of the interpreter, NumPy and ONNX Runtime before a bundle is opened."""
WEIGHT_COPIES = 2
"""A weight is mapped from its file, and packed once more for the processor's matrix product."""
PARTS_OF_SCORES = 2.3
"""What a chunk needs in a rewritten graph, over what it needs in its module: rules split attention scores into parts
that live at the same time. Measured from flow in chunks of 8 and of 16 rows."""


Peaks = dict[tuple[str, tuple[Shape, ...]], int]
"""What a component needs, by its name and the shapes of its inputs."""


@dataclass(frozen=True)
class Forecast:
    """Bytes of one run at the profile's `opt` sizes: `weights` as mapped and packed, `values` between the steps.

    `components` holds what each needs for itself; `chunks` the sizes that this is for.
    """

    weights: int
    values: int
    components: Mapping[str, int]
    chunks: Mapping[str, int]

    @property
    def total(self) -> int:
        """Expected peak of the process."""
        return PROCESS + WEIGHT_COPIES * self.weights + self.values + sum(self.components.values())

    def __str__(self) -> str:
        largest = max(self.components, key=lambda name: self.components[name])
        chunks = ", ".join(f"{size} {dimension}" for dimension, size in self.chunks.items())
        parts = (
            f"weights {WEIGHT_COPIES} x {self.weights / 1e6:,.0f}",
            f"values {self.values / 1e6:,.0f}",
            f"largest component {largest} {self.components[largest] / 1e6:,.0f}",
        )
        pieces = f", in chunks of {chunks}" if chunks else ""
        return f"{self.total / 1e6:,.0f} MB expected for a run in fp32 ({', '.join(parts)}){pieces}"


def forecast(cut: Cut) -> Forecast:
    """Peak memory of one run, by its parts."""
    return _forecast(cut, {})


def fit(cut: Cut, limit: int) -> Cut:
    """The cut with chunks so large that its forecast is just within `limit` bytes.

    Chunks start whole; as long as the forecast is too high, those of the component that needs most are halved. Raises
    UsageError if even chunks of one need more.
    """
    sizes = {dimension: cut.profile.dimensions[dimension].max for dimension in _chunks(cut)}
    known: Peaks = {}
    while True:
        chunked = with_chunks(cut, sizes)
        expected = _forecast(chunked, known)
        if expected.total <= limit:
            return chunked
        steps = [step for step in cut.pipeline.steps if step.chunk and sizes[step.chunk.dimension] > 1]
        if not steps:
            raise UsageError(f"max-memory {limit / 1e6:,.0f} MB: the least possible is {expected}; allow more")
        largest = max(steps, key=lambda step: expected.components[step.component]).chunk
        assert largest is not None  # for mypy: `steps` are chunked
        sizes[largest.dimension] //= 2


def with_chunks(cut: Cut, sizes: Mapping[str, int]) -> Cut:
    """The cut with other chunk sizes, by dimension: the same graphs, run in other pieces."""
    steps = tuple(
        dataclasses.replace(step, chunk=dataclasses.replace(step.chunk, size=sizes[step.chunk.dimension]))
        if step.chunk
        else step
        for step in cut.pipeline.steps
    )
    ranges = {
        name: Range(span.min, sizes[name], span.max) if name in sizes else span
        for name, span in cut.profile.dimensions.items()
    }
    profile = dataclasses.replace(cut.profile, dimensions=ranges)
    return dataclasses.replace(cut, pipeline=dataclasses.replace(cut.pipeline, steps=steps), profile=profile)


def _forecast(cut: Cut, known: Peaks) -> Forecast:
    components: dict[str, int] = {}
    for step, inputs in zip(cut.pipeline.steps, step_shapes(cut), strict=True):
        component = cut.component(step.component)
        piece = _piece(step, component, inputs)
        key = component.name, tuple(piece.values())
        if key not in known:
            known[key] = _peak(component, piece)
        needed = round(known[key] * (PARTS_OF_SCORES if step.chunk else 1))
        components[component.name] = max(components.get(component.name, 0), needed)
    weights = {id(t): t.nbytes for c in cut.components for t in (*c.module.parameters(), *c.module.buffers())}
    return Forecast(sum(weights.values()), sum(value_bytes(cut).values()), components, _chunks(cut))


def _chunks(cut: Cut) -> dict[str, int]:
    return {step.chunk.dimension: step.chunk.size for step in cut.pipeline.steps if step.chunk}


def _piece(step: Step, component: Component, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes of one piece of a chunked step."""
    if step.chunk is None:
        return dict(inputs)
    dimension, size = step.chunk.dimension, step.chunk.size
    return {
        spec.name: tuple(
            min(size, given) if own == dimension else given
            for own, given in zip(spec.shape, inputs[spec.name], strict=True)
        )
        for spec in component.inputs
    }


def _peak(component: Component, shapes: Mapping[str, Shape]) -> int:
    """Bytes that one application makes and holds at the same time."""
    inputs = [
        torch.empty(shapes[spec.name], dtype=getattr(torch, spec.dtype), device="meta") for spec in component.inputs
    ]
    module = on_meta(component.module)
    with torch.no_grad(), Live() as live:
        module(*inputs)
    return int(live.peak)


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of the module whose tensors have no data; those that it shares are shared in the copy."""
    parameters = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in module.parameters()}
    buffers = {id(b): torch.empty_like(b, device="meta") for b in module.buffers()}
    return copy.deepcopy(module, parameters | buffers)


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, and takes off those whose last tensor is dropped."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._holders: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what `func` makes."""
        given = {t.untyped_storage()._cdata for t in tree_leaves(args) if isinstance(t, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            key = tensor.untyped_storage()._cdata
            if key not in given or self._holders[key]:  # else a view of a weight or of the inputs
                self._hold(tensor)
        return made

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._holders[key]:
            self._add(size)
        self._holders[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            self._add(-size)

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)
