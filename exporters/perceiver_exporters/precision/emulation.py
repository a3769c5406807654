"""The roundings of each precision, made by PyTorch: what the reference itself loses when it computes that way.

Nothing here reads the exported graphs. A graph with two weights swapped is as wrong as before beside a noise that was
measured without it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _python_dispatch

from perceiver_exporters.component import Cut
from perceiver_exporters.precision.int8 import SCHEMES, WEIGHT_RANGE, Scheme
from perceiver_exporters.precision.precision import Feeds
from perceiver_exporters.reference import Reference, Scope

_Mode: Any = _python_dispatch.TorchDispatchMode
_aten = torch.ops.aten
_CONVOLUTION = _aten.convolution.default
_OPERANDS = {_aten.mm.default: (0, 1), _aten.addmm.default: (1, 2), _CONVOLUTION: (0, 1)}
"""Where a product's activation and its weight are among its arguments."""
_HALF = {*_OPERANDS, _aten.bmm.default, _aten.baddbmm.default, _aten.gelu.default, _aten.relu.default}


def single(_: Cut, __: tuple[Feeds, ...], ___: str) -> Scope:
    """FP32 is what the reference computes in; attention as two products and a softmax, as in the graph.

    PyTorch's fused attention sums keys in blocks: over 50,176 of them it loses a seventh of what the products lose.
    """
    return lambda _: sdpa_kernel(SDPBackend.MATH)


def half(_: Cut, __: tuple[Feeds, ...], ___: str) -> Scope:
    """Operands and results of every matrix product rounded to FP16; attention as two products and a softmax."""
    return lambda _: _mode(_Half())


def quantized(cut: Cut, calibration: tuple[Feeds, ...], scheme: str) -> Scope:
    """Activations and weights of every product with a parameter rounded to the scheme's integers.

    Ranges come from running the reference itself over the calibration samples.
    """
    parameters = {p.untyped_storage().data_ptr() for c in cut.components for p in c.module.parameters()}
    ranges: dict[_Site, _Range] = defaultdict(_Range)
    observed = Reference(cut, scope=lambda component: _mode(_Observe(component, parameters, ranges)))
    for feeds in calibration:
        for _ in observed.applications(feeds):
            pass
    return lambda component: _mode(_Quantize(component, parameters, ranges, SCHEMES[scheme]))


@contextmanager
def _mode(mode: AbstractContextManager[object]) -> Iterator[None]:
    with sdpa_kernel(SDPBackend.MATH), mode:
        yield


class _Half(_Mode):  # type: ignore[misc]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _HALF:
            return func(*args, **(kwargs or {}))
        return _round_half(func(*(_round_half(a) for a in args), **(kwargs or {})))


def _round_half(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.float16).to(value.dtype)
    return value


@dataclass(frozen=True)
class _Site:
    """The n-th product with a parameter in a run of a component: its input, or what a convolution returns."""

    component: str
    index: int
    output: bool = False


@dataclass
class _Range:
    """Extremes seen so far; 0 is always within, because padding must be exact."""

    low: float = 0.0
    high: float = 0.0

    def see(self, tensor: Tensor) -> None:
        low, high = tensor.aminmax()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))


class _Products(_Mode):  # type: ignore[misc]
    """Hands each product with a parameter to `product`, in order of execution."""

    def __init__(self, component: str, parameters: set[int], ranges: dict[_Site, _Range]) -> None:
        super().__init__()
        self._component = component
        self._parameters = parameters
        self._ranges = ranges
        self._index = -1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        weight = _OPERANDS.get(func, (0, 0))[1]
        if not weight or args[weight].untyped_storage().data_ptr() not in self._parameters:
            return func(*args, **(kwargs or {}))
        self._index += 1
        return self.product(func, list(args), *_OPERANDS[func])

    def product(self, func: Any, args: list[Any], x: int, w: int) -> Tensor:
        raise NotImplementedError

    def range(self, *, output: bool = False) -> _Range:
        return self._ranges[_Site(self._component, self._index, output)]


class _Observe(_Products):
    def product(self, func: Any, args: list[Any], x: int, w: int) -> Tensor:
        self.range().see(args[x])
        result: Tensor = func(*args)
        if func is _CONVOLUTION:
            self.range(output=True).see(result)
        return result


class _Quantize(_Products):
    def __init__(self, component: str, parameters: set[int], ranges: dict[_Site, _Range], scheme: Scheme) -> None:
        super().__init__(component, parameters, ranges)
        self._scheme = scheme

    def product(self, func: Any, args: list[Any], x: int, w: int) -> Tensor:
        args[x] = round_activation(args[x], self.range(), self._scheme)
        args[w] = round_weight(args[w], 0 if func is _CONVOLUTION else 1, self._scheme)
        result: Tensor = func(*args)
        if func is _CONVOLUTION and self._scheme.conv_output:
            return round_activation(result, self.range(output=True), self._scheme)
        return result


def round_activation(x: Tensor, seen: _Range, scheme: Scheme) -> Tensor:
    """Fake-quantise per tensor: to 255 symmetric or 256 asymmetric levels over the range seen."""
    if scheme.symmetric:
        scale = max(-seen.low, seen.high) / 127 or 1.0
        return (x / scale).round().clamp(-127, 127) * scale
    scale = (seen.high - seen.low) / 255 or 1.0
    zero = round(-seen.low / scale)
    return ((x / scale).round() + zero).clamp(0, 255).sub(zero) * scale


def round_weight(weight: Tensor, axis: int, scheme: Scheme) -> Tensor:
    """Fake-quantise per output channel, symmetrically."""
    low, high = WEIGHT_RANGE[scheme.weight]
    others = [i for i in range(weight.ndim) if i != axis]
    scale = 2 * weight.abs().amax(others, keepdim=True) / (high - low)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight / scale).round().clamp(low, high) * scale
