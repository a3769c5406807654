"""Tracing of a component to ONNX, with the names and symbolic dimensions of its specs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common
from torch import Tensor

from perceiver_exporters.component import Component
from perceiver_exporters.ir.graph import clean, name_by_module
from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.ir.translations import TRANSLATIONS
from perceiver_exporters.ir.value_ranges import store as store_ranges
from perceiver_runtime.errors import CheckError
from perceiver_runtime.tensors import Profile, TensorSpec

PARAMETERS = "perceiver.parameters"
"""Metadata key of a traced graph: number of trained parameters that the component reads."""


def trace(component: Component, profile: Profile, opset: int = 20) -> ir.Model:
    """Trace a component.

    Args:
        component: Module and the specs of its inputs and outputs.
        profile: Ranges of the symbolic dimensions.
        opset: ONNX operator set of the graph.

    Returns:
        The checked graph, with inputs and outputs named as in the specs.

    Raises:
        CheckError: PyTorch can't trace the module over these ranges, or the graph's inputs or outputs differ from the
            specs.
    """
    inputs = tuple(torch.from_numpy(example) for example in examples(component.inputs, profile))
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                component.module.eval(),
                inputs,
                input_names=[spec.name for spec in component.inputs],
                dynamic_shapes=_dynamic_shapes(component, profile),
                custom_translation_table=dict(TRANSLATIONS),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise CheckError(f"component {component.name} can't be traced: {_cause(error)}") from error
        assert program is not None  # for mypy: only the legacy exporter returns None
        model = clean(_name_values(name_by_module(program.model), component.outputs))
        common.CheckerPass(full_check=False)(model)
    model.graph.name = component.name
    model.metadata_props[PARAMETERS] = str(_parameters(program.exported_program))
    check_specs(model, component, profile)
    for value, spec in zip(
        (*model.graph.inputs, *model.graph.outputs), (*component.inputs, *component.outputs), strict=True
    ):
        value.shape = ir.Shape(spec.shape)  # a symbol whose range is one size was traced as that size
    store_ranges(model, profile)
    return model


def _cause(error: BaseException) -> str:
    """The first exception of the chain: PyTorch's own message starts with advice for developers of the exporter."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def examples(specs: Sequence[TensorSpec], profile: Profile) -> list[np.ndarray]:
    """Zeros whose symbolic dimensions have distinct sizes near the profile's `opt`, for tracing to tell them apart.

    Sizes 0 and 1 are avoided if the range allows, because PyTorch specialises on them.
    """
    sizes: dict[str, int] = {}
    for symbol in dict.fromkeys(s for spec in specs for s in spec.symbols):
        bounds = profile.dimensions[symbol]
        nearby = range(min(max(bounds.opt, 2), bounds.max), bounds.max + 1)
        sizes[symbol] = next((size for size in nearby if size not in sizes.values()), nearby[0])
    return [np.zeros(spec.resolve(sizes), spec.dtype) for spec in specs]


def check_specs(model: ir.Model, component: Component, profile: Profile) -> None:
    """Raise CheckError if the graph's inputs or outputs differ from the component's specs."""
    for kind, values, specs in (
        ("input", model.graph.inputs, component.inputs),
        ("output", model.graph.outputs, component.outputs),
    ):
        got = [_describe(value) for value in values]
        expected = [str(_fixed(spec, profile)) for spec in specs]
        if got != expected:
            raise CheckError(
                f"component {component.name}: the graph's {kind}s are {got}, its specs say {expected}; "
                "correct the specs of the cut, or the module's forward"
            )


class SharedTraces:
    """A tracer that traces each component of one blueprint once per opset and returns copies."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, int], ir.Model] = {}

    def __call__(self, component: Component, profile: Profile, opset: int) -> ir.Model:
        """A copy of what `trace` returns."""
        key = component.name, opset
        if key not in self._models:
            self._models[key] = trace(component, profile, opset)
        return self._models[key].clone()


def _name_values(model: ir.Model, outputs: Sequence[TensorSpec]) -> ir.Model:
    """Name the outputs after their specs, and rename parameters that have the name of an input or output.

    The exporter does not resolve such conflicts. Outputs without a spec are reported by `check_specs`.
    """
    named = [(value, str(value.name)) for value in model.graph.inputs]
    named += [(value, spec.name) for value, spec in zip(model.graph.outputs, outputs, strict=False)]
    for value, name in named:
        if (parameter := model.graph.initializers.get(name)) is not None and parameter is not value:
            parameter.name = f"{name}.parameter"
        value.name = name
    return model


def _dynamic_shapes(component: Component, profile: Profile) -> tuple[Any, ...]:
    dims = {
        symbol: torch.export.Dim(symbol, min=bounds.min, max=bounds.max)
        for symbol, bounds in profile.dimensions.items()
        if bounds.min < bounds.max
    }
    shapes = tuple({i: dims[d] for i, d in enumerate(spec.shape) if d in dims} for spec in component.inputs)
    parameters = inspect.signature(component.module.forward).parameters.values()
    return (shapes,) if any(p.kind is p.VAR_POSITIONAL for p in parameters) else shapes


def _fixed(spec: TensorSpec, profile: Profile) -> TensorSpec:
    """The spec with every symbol whose range is a single size replaced by that size."""
    fixed = {s: r.min for s in spec.symbols if (r := profile.dimensions[s]).min == r.max}
    return TensorSpec(spec.name, spec.dtype, tuple(fixed.get(str(d), d) for d in spec.shape))


def _describe(value: ir.Value) -> str:
    assert value.type is not None
    assert value.shape is not None
    shape = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
    return str(TensorSpec(str(value.name), value.type.dtype.numpy().name, shape))


def _parameters(program: torch.export.ExportedProgram | None) -> int:
    assert program is not None
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.arg.name in used}
    parameters = set(program.graph_signature.parameters)
    tensors: list[Tensor] = [program.state_dict[n] for n in dict.fromkeys(names.values()) if n in parameters]
    return sum(t.numel() for t in {t.data_ptr(): t for t in tensors}.values())
