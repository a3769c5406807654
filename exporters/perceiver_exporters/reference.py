"""The PyTorch reference of every comparison: a cut executed step by step, in any floating-point type."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from perceiver_exporters.component import Component, Cut
from perceiver_runtime.errors import FeedError
from perceiver_runtime.golden import ComponentCall
from perceiver_runtime.pipeline import Chunk, Pipeline, Step
from perceiver_runtime.tensors import Array, TensorSpec

Feeds = Mapping[str, Array]
"""Inputs of a model or a component, by name."""

Tensors = dict[str, Tensor]
Scope = Callable[[str], AbstractContextManager[object]]
"""The context of one call of the named component, in which an emulation is active."""


@dataclass(frozen=True)
class Trace:
    """Results of one run of the pipeline: all values by name, and the first call of each component.

    The first call is the first repetition of a repeated step, and the first chunk of a chunked one.
    """

    values: Mapping[str, Array]
    first: Mapping[str, ComponentCall]


def in_double(cut: Cut) -> Cut:
    """The cut with copies of its modules in FP64, or unchanged if it is in FP64. Shared tensors stay shared."""
    if _floating_type([component.module for component in cut.components]) == torch.float64:
        return cut
    modules = [module.double() for module in copy.deepcopy([component.module for component in cut.components])]
    components = zip(cut.components, modules, strict=True)
    return dataclasses.replace(cut, components=tuple(dataclasses.replace(c, module=m) for c, m in components))


class Reference:
    """Modules of a cut, ready to run.

    Args:
        cut: The model.
        dtype: Floating-point type (None: the modules' own). Modules are copied if it differs; shared tensors stay
            shared.
        scope: Context of each call.
    """

    def __init__(self, cut: Cut, dtype: torch.dtype | None = None, scope: Scope = lambda _: nullcontext()) -> None:
        modules = [component.module for component in cut.components]
        self.cut = cut
        self._dtype = dtype or _floating_type(modules)
        if self._dtype != _floating_type(modules):
            modules = [module.to(self._dtype) for module in copy.deepcopy(modules)]
        self._scope = scope
        self._modules: dict[str, nn.Module] = {
            component.name: module.eval() for component, module in zip(cut.components, modules, strict=True)
        }

    def run(self, feeds: Mapping[str, Array]) -> Trace:
        """Run the whole pipeline on one sample."""
        values: Tensors = {}
        first: dict[str, ComponentCall] = {}
        for call in self.calls(feeds, values):
            first.setdefault(call.component, call)
        return Trace(_arrays(values), first)

    def calls(self, feeds: Mapping[str, Array], values: Tensors | None = None) -> Iterator[ComponentCall]:
        """Run the pipeline and yield each component call; `values` is filled along the way."""
        values = {} if values is None else values
        values.update({name: self._tensor(a) for name, a in complete(self.cut.pipeline, feeds).items()})
        for step in self.cut.pipeline.steps:
            yield from self._step(step, values)

    def apply(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one component on given inputs (teacher-forced)."""
        outputs = self._apply(self.cut.component(component), {n: self._tensor(a) for n, a in inputs.items()})
        return _arrays(outputs)

    def nonfinite_layer(self, component: str, inputs: Mapping[str, Array]) -> str:
        """Path of the first layer of a component that computes NaN or infinity of these inputs; empty if none does."""
        module, found = self._modules[component], list[str]()

        def look(name: str, result: object) -> None:
            tensors = result if isinstance(result, tuple) else (result,)
            if any(isinstance(t, Tensor) and t.is_floating_point() and not t.isfinite().all() for t in tensors):
                found.append(name or component)

        hooks = [
            layer.register_forward_hook(lambda _m, _i, result, name=name: look(name, result))
            for name, layer in module.named_modules()
        ]
        try:
            self.apply(component, inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return found[0] if found else ""

    def _step(self, step: Step, values: Tensors) -> Iterator[ComponentCall]:
        """Repetitions or chunks: a step has one of them at most."""
        component = self.cut.component(step.component)
        state = {name: values[value] for name, value in step.inputs.items()}
        made: list[Tensors] = []
        for part in _chunks(step, component, state):
            inputs = {**state, **part}
            outputs = self._apply(component, inputs)
            yield ComponentCall(step.component, _arrays(inputs), _arrays(outputs))
            state.update({target: outputs[name] for name, target in step.carry.items()})
            made.append(outputs)
        joined = _join(step.chunk, component, made)
        values.update({value: joined[name] for name, value in step.outputs.items()})

    def _apply(self, component: Component, inputs: Tensors) -> Tensors:
        try:
            with torch.no_grad(), DoubleQuantizers(), self._scope(component.name):
                result = self._modules[component.name](*(inputs[spec.name] for spec in component.inputs))
        except IndexError as error:
            raise _out_of_range(component, inputs, error) from error
        made = result if isinstance(result, tuple) else (result,)
        return {spec.name: tensor for spec, tensor in zip(component.outputs, made, strict=True)}

    def _tensor(self, array: Array) -> Tensor:
        tensor = torch.tensor(array)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


class DoubleQuantizers(TorchFunctionMode):
    """Fake quantizers with scales per channel in FP64, which PyTorch has no kernel for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.fake_quantize_per_channel_affine and args[1].dtype == torch.float64:
            x, scale, zero, axis, low, high = args
            shape = [-1 if i == axis else 1 for i in range(x.ndim)]
            step, offset = scale.view(shape), zero.view(shape)
            return ((x / step).round() + offset).clamp(low, high).sub(offset) * step
        return func(*args, **(kwargs or {}))


def _out_of_range(component: Component, inputs: Tensors, error: IndexError) -> FeedError:
    """What PyTorch says of an id that no table has a row for."""
    ids = {name: tensor for name, tensor in inputs.items() if not tensor.is_floating_point() and tensor.numel()}
    got = ", ".join(f"{name} of {int(tensor.min())} to {int(tensor.max())}" for name, tensor in ids.items())
    return FeedError(
        f"component {component.name}: expected indices that the model knows, got {got or 'others'} ({error}); correct "
        "the inputs"
    )


def _floating_type(modules: Sequence[nn.Module]) -> torch.dtype:
    """The type of parameters and buffers; FP32 if there are none."""
    tensors = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def complete(pipeline: Pipeline, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Fill optional inputs that are missing with their defaults. Raises FeedError if a required one is missing."""
    if missing := [s.name for s in pipeline.inputs if s.name not in feeds and s.name not in pipeline.defaults]:
        raise FeedError(f"reference inputs lack {', '.join(missing)}; got {', '.join(feeds)}")
    sizes = {
        symbol: size
        for spec in pipeline.inputs
        if spec.name in feeds
        for symbol, size in zip(spec.shape, feeds[spec.name].shape, strict=True)
        if isinstance(symbol, str)
    }
    return {s.name: feeds[s.name] if s.name in feeds else _default(s, pipeline, sizes) for s in pipeline.inputs}


def _default(spec: TensorSpec, pipeline: Pipeline, sizes: Mapping[str, int]) -> Array:
    return np.full(spec.resolve(sizes), pipeline.defaults[spec.name], spec.dtype)


def _chunks(step: Step, component: Component, state: Tensors) -> Iterator[Tensors]:
    """For each chunk, slices of the inputs with the chunked dimension; for each repetition, nothing."""
    if step.chunk is None:
        yield from ({} for _ in range(step.repeat))
        return
    chunk = step.chunk
    axes = {s.name: s.shape.index(chunk.dimension) for s in component.inputs if chunk.dimension in s.shape}
    whole = {name: state[name] for name in axes}
    total = next(whole[name].shape[axis] for name, axis in axes.items())
    for start in range(0, min(chunk.size, total) if chunk.only_first else total, chunk.size):
        size = min(chunk.size, total - start)
        yield {name: whole[name].narrow(axis, start, size) for name, axis in axes.items()}


def _join(chunk: Chunk | None, component: Component, parts: list[Tensors]) -> Tensors:
    """Outputs with the chunked dimension concatenated along it; all others from the last chunk."""
    joined = dict(parts[-1])
    for spec in component.outputs:
        if chunk is not None and chunk.dimension in spec.shape:
            joined[spec.name] = torch.cat([p[spec.name] for p in parts], dim=spec.shape.index(chunk.dimension))
    return joined


def _arrays(tensors: Tensors) -> dict[str, Array]:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}
