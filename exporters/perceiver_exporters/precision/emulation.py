"""The roundings of each precision, made by PyTorch: what the reference itself loses when it computes that way.

Nothing here reads the exported graphs. A graph with two weights swapped is as wrong as before beside a noise that was
measured without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _python_dispatch

from perceiver_exporters.component import Cut
from perceiver_exporters.precision.calibration.methods import Bounds
from perceiver_exporters.precision.calibration.statistics import Extremes, Statistics
from perceiver_exporters.precision.formats import BF16, FP16, Format
from perceiver_exporters.precision.integers.plan import ComponentPlan, Modules, Plan
from perceiver_exporters.precision.integers.scheme import SCHEMES, Scheme
from perceiver_exporters.precision.precision import Feeds
from perceiver_exporters.precision.rounding import range_of, round_activation, round_eight, round_four, round_weight
from perceiver_exporters.reference import Reference, Scope

_Mode: Any = _python_dispatch.TorchDispatchMode
_aten = torch.ops.aten
_CONVOLUTION = _aten.convolution.default
_OPERANDS = {_aten.mm.default: (0, 1), _aten.addmm.default: (1, 2), _CONVOLUTION: (0, 1)}
"""Where a product's activation and its weight are among its arguments."""
_FACTORS = {
    **_OPERANDS,
    _aten.bmm.default: (0, 1),
    _aten.baddbmm.default: (1, 2),
    _aten.mv.default: (0, 1),
    _aten.addmv.default: (1, 2),
    _aten.dot.default: (0, 1),
}
_ROUNDED = {*_FACTORS, _aten.gelu.default, _aten.relu.default}
Run = Callable[..., Tensor]


def single(cut: Cut, calibration: Sequence[Feeds], scheme: str, plan: Plan | None = None) -> Scope:
    """FP32 is what the reference computes in; attention as two products and a softmax, as in the graph.

    PyTorch's fused attention sums keys in blocks: over 50,176 of them it loses a seventh of what the products lose.
    """
    return lambda _: sdpa_kernel(SDPBackend.MATH)


def half(cut: Cut, calibration: Sequence[Feeds], scheme: str, plan: Plan | None = None) -> Scope:
    """Operands and results of every matrix product rounded to FP16; attention as two products and a softmax."""
    return lambda _: _mode(_Rounded(FP16))


def brain(cut: Cut, calibration: Sequence[Feeds], scheme: str, plan: Plan | None = None) -> Scope:
    """The same in BF16."""
    return lambda _: _mode(_Rounded(BF16))


def quantized(cut: Cut, calibration: Sequence[Feeds], scheme: str, plan: Plan | None = None) -> Scope:
    """Activations and weights of every product with a parameter rounded to the scheme's integers."""
    layers, decided = _layers(cut), plan if plan is not None else _unplanned(cut, calibration)
    return lambda component: _products(_Quantize(layers[component], decided[component], SCHEMES[scheme]))


def ranged(cut: Cut, calibration: Sequence[Feeds], scheme: str, plan: Plan | None = None) -> Scope:
    """The same, each activation over the range that it has at that moment, and convolutions in FP32."""
    layers = _layers(cut)
    decided = plan if plan is not None else {name: ComponentPlan(Statistics()) for name in layers}
    return lambda component: _products(_Ranged(layers[component], decided[component], SCHEMES[scheme]))


def eight(cut: Cut, calibration: Sequence[Feeds], scheme: str, plan: Plan | None = None) -> Scope:
    """Activations per tensor and weights per channel of every product with a parameter rounded to FP8 (E4M3)."""
    layers, decided = _layers(cut), plan if plan is not None else _unplanned(cut, calibration)
    return lambda component: _products(_Eight(layers[component], decided[component]))


def four(cut: Cut, calibration: Sequence[Feeds], scheme: str, plan: Plan | None = None) -> Scope:
    """Weights of every product with a parameter rounded to INT4, in blocks of input channels."""
    layers = _layers(cut)
    return lambda component: _products(_Four(layers[component]))


def observing(cut: Cut, statistics: Mapping[str, Statistics]) -> Scope:
    """Runs the reference as it is, and adds what each product reads to the `sites` of the components given."""
    layers = _layers(cut)
    return lambda component: (
        _products(_Observe(layers[component], statistics[component]))
        if component in statistics
        else single(cut, (), "")("")
    )


def _unplanned(cut: Cut, calibration: Sequence[Feeds]) -> Plan:
    statistics = {component.name: Statistics() for component in cut.components}
    reference = Reference(cut, scope=observing(cut, statistics))
    for feeds in calibration:
        for _ in reference.calls(feeds):
            pass
    return {name: ComponentPlan(each) for name, each in statistics.items()}


@dataclass(frozen=True)
class _Layers:
    """A component's module, and the paths of the modules that hold a parameter, by where its data lie."""

    module: nn.Module
    holders: Mapping[int, Modules]


def _layers(cut: Cut) -> dict[str, _Layers]:
    """By component."""
    return {component.name: _Layers(component.module, _holders(component.module)) for component in cut.components}


def _holders(module: nn.Module) -> dict[int, Modules]:
    found: dict[int, Modules] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        place = parameter.untyped_storage().data_ptr()
        found[place] = (*found.get(place, ()), name.rpartition(".")[0])
    return found


@contextmanager
def _mode(mode: AbstractContextManager[object]) -> Iterator[None]:
    """Attention as products and a softmax, also where PyTorch has one kernel for a whole layer."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), mode:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _products(mode: _Products) -> Iterator[None]:
    """The mode, told at any time which modules are running."""

    def enters(name: str) -> Callable[..., None]:
        return lambda *_: mode.running.append(name)

    def leaves(*_: object) -> None:
        mode.running.pop()

    with ExitStack() as stack, _mode(mode):
        for name, module in mode.layers.module.named_modules():
            stack.callback(module.register_forward_pre_hook(enters(name)).remove)
            stack.callback(module.register_forward_hook(leaves, always_call=True).remove)
        yield


class _Rounded(_Mode):  # type: ignore[misc]
    """What does not fit the type stays in FP32, as the range audit leaves it in the graph (RA008, RA009)."""

    def __init__(self, form: Format) -> None:
        super().__init__()
        self._form, self._dtype = form, form.torch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        operands = [args[i] for i in _FACTORS.get(func, (0,))] if func in _ROUNDED else []
        if operands and all(map(self._holds, operands)):
            rounded = self._round(func(*map(self._round, args), **given))
            if self._holds(rounded):
                return rounded
        return func(*args, **given)

    def _holds(self, value: Tensor) -> bool:
        low, high = torch.aminmax(value) if value.numel() else (torch.zeros(()), torch.zeros(()))
        return self._form.holds(max(-float(low), float(high)))

    def _round(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(self._dtype).to(value.dtype)
        return value


class _Products(_Mode):  # type: ignore[misc]
    """Hands each product with a parameter to `product`, in order of execution.

    A weight that several modules hold or read is the running module's, as in the graph.
    """

    def __init__(self, layers: _Layers) -> None:
        super().__init__()
        self.layers = layers
        self.running: list[str] = []
        self._index = -1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is _aten.bmm.default and self._holders(args[1]) and args[1].stride(0) == 0:
            # a linear layer over inputs that are transposed: one weight, repeated for every row of the batch
            flat: Tensor = self.__torch_dispatch__(_aten.mm.default, types, (args[0].flatten(0, 1), args[1][0]))
            return flat.reshape(*args[0].shape[:2], -1)
        x, w = _OPERANDS.get(func, (0, 0))
        holders = self._holders(args[w]) if w else ()
        if not holders:
            return func(*args, **given)
        self._index += 1
        modules = (*self.running[-1:], *holders)
        return self.product(functools.partial(func, **given), list(args), x, w, modules, func is _CONVOLUTION)

    def _holders(self, weight: Tensor) -> Modules:
        return self.layers.holders.get(weight.untyped_storage().data_ptr(), ())

    def product(self, run: Run, args: list[Any], x: int, w: int, modules: Modules, convolves: bool) -> Tensor:
        """What the product of `args[x]` and `args[w]` gives, the rest being `run`'s."""
        raise NotImplementedError


class _Observe(_Products):
    def __init__(self, layers: _Layers, statistics: Statistics) -> None:
        super().__init__(layers)
        self._sites = statistics.sites

    def product(self, run: Run, args: list[Any], x: int, w: int, modules: Modules, convolves: bool) -> Tensor:
        self._sites[f"{self._index}"].see(args[x].float().numpy(), modules[0])
        result = run(*args)
        if convolves:
            self._sites[f"{self._index}/output"].see(result.float().numpy(), modules[0])
        return result


class _Quantize(_Products):
    def __init__(self, layers: _Layers, plan: ComponentPlan, scheme: Scheme) -> None:
        super().__init__(layers)
        self._plan = plan
        self._scheme = scheme

    def product(self, run: Run, args: list[Any], x: int, w: int, modules: Modules, convolves: bool) -> Tensor:
        layer = self._plan.layer(modules)
        if not self._plan.quantizes(layer):
            return run(*args)
        if (divisor := self._plan.divisors.get(layer)) is not None:  # powers of two: exact
            factor = torch.from_numpy(divisor)
            args[x], args[w] = args[x] / factor, args[w] * factor[:, None]
        args[x] = round_activation(args[x], self._bounds(f"{self._index}", divisor), self._scheme)
        args[w] = round_weight(args[w], 0 if convolves else 1, self._scheme)
        result = run(*args)
        if convolves and self._scheme.conv_output:
            return round_activation(result, self._bounds(f"{self._index}/output"), self._scheme)
        return result

    def _bounds(self, site: str, divisor: Extremes | None = None) -> Bounds:
        return self._plan.statistics.sites[site].bounds(self._plan.method, divisor)


class _Ranged(_Products):
    def __init__(self, layers: _Layers, plan: ComponentPlan, scheme: Scheme) -> None:
        super().__init__(layers)
        self._plan = plan
        self._scheme = scheme

    def product(self, run: Run, args: list[Any], x: int, w: int, modules: Modules, convolves: bool) -> Tensor:
        if not convolves and self._plan.quantizes(self._plan.layer(modules)):
            args[x] = round_activation(args[x], range_of(args[x]), self._scheme)
            args[w] = round_weight(args[w], 1, self._scheme)
        return run(*args)


class _Eight(_Products):
    def __init__(self, layers: _Layers, plan: ComponentPlan) -> None:
        super().__init__(layers)
        self._sites = plan.statistics.sites

    def product(self, run: Run, args: list[Any], x: int, w: int, modules: Modules, convolves: bool) -> Tensor:
        low, high = self._sites[f"{self._index}"].bounds("minmax")
        args[x] = round_eight(args[x], torch.tensor(max(-low, high)))
        axis = 0 if convolves else 1
        args[w] = round_eight(args[w], args[w].abs().amax([i for i in range(args[w].ndim) if i != axis], keepdim=True))
        return run(*args)


class _Four(_Products):
    def product(self, run: Run, args: list[Any], x: int, w: int, modules: Modules, convolves: bool) -> Tensor:
        if not convolves:  # ModelOpt leaves convolutions alone
            args[w] = round_four(args[w])
        return run(*args)
