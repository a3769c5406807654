"""The form of a component's attention: operators where they fuse more and keep parity, else the products of the graph.

It is chosen on the device, by building both. What was not chosen, and why, is in the build report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Literal

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.errors import BuildError
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensorrt.builder.build import BuildDevice, BuildRequest, BuiltEngine, build_engine
from perceiver_runtime.tensorrt.dialect import dialect
from perceiver_runtime.tensorrt.inspection import Inspection, inspect_engine
from perceiver_runtime.tensorrt.trial import run_plan
from perceiver_runtime.tensors import Array

AttentionOption = Literal["auto", "products", "operator"]
RunComponent = Callable[[Mapping[str, Array]], Mapping[str, Array]]
Parity = Callable[[Bundle, ComponentEntry, RunComponent], str]
"""Compares what a component computes with its golden samples: nothing if it passed, else the tensor that failed."""
_HALVES = {"fp16", "bf16"}


@dataclass(frozen=True)
class FormOptions:
    """Which form to build. `auto` needs the GPU (`device`, `cuda`) and a check of parity to build operators."""

    asked: AttentionOption = "auto"
    device: BuildDevice | None = None
    cuda: CudaDevice | None = None
    parity: Parity | None = None


@dataclass(frozen=True)
class BuiltForm:
    """An engine, what TensorRT tells of it (on a machine with its GPU), and why its attention has this form."""

    built: BuiltEngine
    inspection: Inspection | None
    reason: str


def build_form(
    trt: ModuleType, bundle: Bundle, entry: ComponentEntry, request: BuildRequest, options: FormOptions
) -> BuiltForm:
    """Build a component. Raises what `build_engine` raises for the form that was asked for; `auto`: for products."""
    if options.asked == "operator":
        made = _build(trt, dataclasses.replace(request, attention="operator"), options, "asked for")
        return dataclasses.replace(made, reason=f"asked for: {made.built.operators}; parity not checked")
    products = _build(trt, request, options, "asked for")
    if options.asked == "products":
        return products
    if reason := _not_tried(trt, products, options):
        return dataclasses.replace(products, reason=reason)
    try:
        operator = _build(trt, dataclasses.replace(request, attention="operator"), options, "")
    except BuildError as error:
        return dataclasses.replace(products, reason=f"operator refused: {error}")
    if reason := _worse(trt, bundle, entry, products, operator, options):
        return dataclasses.replace(products, reason=reason)
    return dataclasses.replace(operator, reason=f"{_kernels(operator, products)}; parity passed")


def _build(trt: ModuleType, request: BuildRequest, options: FormOptions, reason: str) -> BuiltForm:
    built = build_engine(trt, request, options.device)
    if options.device is None:  # only a machine with the GPU can open the engine again
        return BuiltForm(built, None, reason)
    inspection = inspect_engine(trt, built.plan, request.component)
    sidecar = dataclasses.replace(
        built.sidecar, device_bytes=inspection.device_bytes, fused_attention=inspection.fused_attention
    )
    return BuiltForm(dataclasses.replace(built, sidecar=sidecar), inspection, reason)


def _not_tried(trt: ModuleType, products: BuiltForm, options: FormOptions) -> str:
    rules = dialect(trt)
    if not rules.attention:
        return f"{rules.name} has no attention operator"
    if not _HALVES & products.built.sidecar.products.keys():
        return "nothing in FP16 or BF16, which fused kernels need"
    if options.cuda is None or options.parity is None:
        return "operator not tried: parity needs the GPU"
    return ""


def _worse(
    trt: ModuleType,
    bundle: Bundle,
    entry: ComponentEntry,
    products: BuiltForm,
    operator: BuiltForm,
    options: FormOptions,
) -> str:
    """Why operators are not taken, or nothing."""
    if not operator.built.operators.replaced:
        return f"no operator: {operator.built.operators}"
    if operator.built.operators.masked:  # all keys excluded: products attend all equally, no golden sample may have it
        return "operator not taken: attention is masked, and what it gives where no key is left is not defined"
    if _fused(operator) <= _fused(products):
        return f"operator not taken: {_kernels(operator, products)}"
    assert options.cuda is not None  # for mypy, as the next
    assert options.parity is not None
    failed = options.parity(bundle, entry, partial(run_plan, trt, options.cuda, operator.built.plan, entry))
    return f"operator failed parity: {failed}" if failed else ""


def _kernels(operator: BuiltForm, products: BuiltForm) -> str:
    return f"{_fused(operator)} fused kernels as operators, {_fused(products)} as products"


def _fused(form: BuiltForm) -> int:
    return form.built.sidecar.fused_attention or 0
