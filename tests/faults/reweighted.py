"""Tracing is slow, and sees the architecture alone: a trace with other weights put in is the trace of those weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.component import Blueprint, Component
from perceiver_exporters.export import Tracer
from perceiver_runtime.tensors import Array, Profile


def reweighted(base: Blueprint, tracer: Tracer) -> Tracer:
    """A tracer for models of the architecture of `base`, which `tracer` traces: every trained constant is replaced."""

    def trace(component: Component, profile: Profile, opset: int) -> ir.Model:
        old = base.cut.component(component.name)
        model = tracer(old, profile, opset)
        theirs = dict(component.module.named_parameters())
        parameters = {name: (p.numpy(), theirs[name].numpy()) for name, p in old.module.named_parameters()}
        found = 0
        for value in model.graph.initializers.values():
            assert value.const_value is not None
            array = _replacement(value.const_value.numpy(), parameters)
            if array is not None:
                value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
                found += 1
        assert found == len(parameters), "every parameter is a constant of its own in the trace"
        return model

    return trace


def _replacement(constant: Array, parameters: dict[str, tuple[Array, Array]]) -> Array | None:
    """The parameter that the constant was, or was the transpose of."""
    for old, new in parameters.values():
        if np.array_equal(constant, old):
            return new
        if old.ndim == 2 and np.array_equal(constant, old.T):
            return new.T
    return None
