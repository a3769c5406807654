"""Emulation of a precision in PyTorch: dispatch modes that round the operands of products.

Nothing here reads the exported graphs, so an error in a graph, such as two swapped weights, does not enter the noise
from which tolerances are derived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _python_dispatch

from perceiver_exporters.component import Cut
from perceiver_exporters.precision.calibration.statistics import Statistics
from perceiver_exporters.precision.integers.plan import ComponentPlan, Modules, Plan
from perceiver_exporters.reference import Feeds, Reference, Scope

DispatchMode: Any = _python_dispatch.TorchDispatchMode
_aten = torch.ops.aten
_CONVOLUTION = _aten.convolution.default
_OPERANDS = {_aten.mm.default: (0, 1), _aten.addmm.default: (1, 2), _CONVOLUTION: (0, 1)}
"""Indices of a product's activation and its weight among its arguments."""


@dataclass(frozen=True)
class Product:
    """One product of an activation and a parameter, or of two activations, as PyTorch dispatches it.

    Attributes:
        site: Its place in the order of execution, as `3`.
        modules: Path of the running module, then of all modules that hold the weight.
        convolves: Whether it is a convolution.
        attends: Whether `weight` is an activation too; the site is then `attention/3`.
        x: The activation: (M, K), or (B, K, ...) of a convolution.
        weight: (K, N), or (N, K, ...) of a convolution.
        run: Computes the product of another activation and weight.
    """

    site: str
    modules: Modules
    convolves: bool
    x: Tensor
    weight: Tensor
    run: Callable[[Tensor, Tensor], Tensor]
    attends: bool = False

    @property
    def channel_axis(self) -> int:
        """The axis of the weight along which its output channels lie."""
        return 0 if self.convolves else 1


Compute = Callable[[Product], Tensor]
"""Computes a product in a precision."""


def emulate_fp32() -> AbstractContextManager[object]:
    """FP32, which the reference computes in, with attention as two products and a softmax, as in the graph.

    PyTorch's fused attention accumulates in blocks: over 50,176 keys its rounding error is a seventh of the products'.
    """
    return sdpa_kernel(SDPBackend.MATH)


def emulate_products(cut: Cut, compute: Callable[[str], Compute | None], attention: bool = False) -> Scope:
    """A scope that computes products with a parameter by `compute(component)`; None leaves a component as it is.

    A weight that several modules hold belongs to the running module, as in the graph. With `attention`, products of two
    activations are computed so too.
    """
    modules = {component.name: component.module for component in cut.components}
    holders = {name: _holders(module) for name, module in modules.items()}

    def scope(component: str) -> AbstractContextManager[object]:
        chosen = compute(component)
        if chosen is None:
            return emulate_fp32()
        return _products(modules[component], _ProductMode(holders[component], chosen, attention))

    return scope


def observe_sites(cut: Cut, statistics: Mapping[str, Statistics], attention: bool = False) -> Scope:
    """A scope that adds the inputs of products to the `sites` of the given components, and changes nothing."""

    def observing(component: str) -> Compute | None:
        if component not in statistics:
            return None
        sites = statistics[component].sites

        def see(product: Product) -> Tensor:
            sites[product.site].see(product.x.float().numpy(), product.modules[0])
            result = product.run(product.x, product.weight)
            if product.attends:
                sites[f"{product.site}/right"].see(product.weight.float().numpy(), product.modules[0])
            if product.convolves:
                sites[f"{product.site}/output"].see(result.float().numpy(), product.modules[0])
            return result

        return see

    return emulate_products(cut, observing, attention)


def quantizes(cut: Cut, samples: Iterable[Feeds]) -> bool:
    """Whether the modules quantise anything themselves on these samples."""
    seen = _Quantizers()
    with seen:
        for feeds in samples:
            for _ in Reference(cut).calls(feeds):
                pass
    return seen.any


class _Quantizers(DispatchMode):  # type: ignore[misc]
    """Notices operators that quantise."""

    def __init__(self) -> None:
        super().__init__()
        self.any = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.any |= "quantize" in str(func)
        return func(*args, **(kwargs or {}))


def calibrate_sites(cut: Cut, calibration: Iterable[Feeds]) -> Plan:
    """Plans whose ranges are those of the reference on these samples."""
    statistics = {component.name: Statistics() for component in cut.components}
    reference = Reference(cut, scope=observe_sites(cut, statistics))
    for feeds in calibration:
        for _ in reference.calls(feeds):
            pass
    return {name: ComponentPlan(each) for name, each in statistics.items()}


@contextmanager
def unfused(mode: AbstractContextManager[object]) -> Iterator[None]:
    """The mode, with attention as products and a softmax instead of a fused kernel."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with emulate_fp32(), mode:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _holders(module: nn.Module) -> dict[int, Modules]:
    """Paths of the modules that hold a parameter, by the address of its data."""
    found: dict[int, Modules] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        address = parameter.untyped_storage().data_ptr()
        found[address] = (*found.get(address, ()), name.rpartition(".")[0])
    return found


@contextmanager
def _products(module: nn.Module, mode: _ProductMode) -> Iterator[None]:
    def enters(name: str) -> Callable[..., None]:
        return lambda *_: mode.running.append(name)

    def leaves(*_: object) -> None:
        mode.running.pop()

    with ExitStack() as stack, unfused(mode):
        for name, layer in module.named_modules():
            stack.callback(layer.register_forward_pre_hook(enters(name)).remove)
            stack.callback(layer.register_forward_hook(leaves, always_call=True).remove)
        yield


class _ProductMode(DispatchMode):  # type: ignore[misc]
    """Passes each product with a parameter to `compute`, in order of execution."""

    def __init__(self, holders: Mapping[int, Modules], compute: Compute, attention: bool) -> None:
        super().__init__()
        self.running: list[str] = []
        self._holders = holders
        self._compute = compute
        self._attention = attention
        self._count = self._attended = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is _aten.bmm.default and self._held_by(args[1]) and args[1].stride(0) == 0:
            # a linear layer over inputs that are transposed: one weight, repeated for every row of the batch
            flat: Tensor = self.__torch_dispatch__(_aten.mm.default, types, (args[0].flatten(0, 1), args[1][0]))
            return flat.reshape(*args[0].shape[:2], -1)
        x, weight = _OPERANDS.get(func, (0, 0))
        holders = self._held_by(args[weight]) if weight else ()
        if not holders and self._attention and func is _aten.bmm.default:
            site, self._attended = f"attention/{self._attended}", self._attended + 1
            left, right = args
            return self._compute(Product(site, tuple(self.running[-1:]), False, left, right, func, attends=True))
        if not holders:
            return func(*args, **given)

        def run(activation: Tensor, parameter: Tensor) -> Tensor:
            operands = {x: activation, weight: parameter}
            result: Tensor = func(*(operands.get(i, argument) for i, argument in enumerate(args)), **given)
            return result

        site, modules = str(self._count), (*self.running[-1:], *holders)
        self._count += 1
        return self._compute(Product(site, modules, func is _CONVOLUTION, args[x], args[weight], run))

    def _held_by(self, weight: Tensor) -> Modules:
        return self._holders.get(weight.untyped_storage().data_ptr(), ())
