"""A cut against the whole module: what tracing or cutting got wrong must never become a reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_exporters.component import Cut
from perceiver_exporters.cutting.call import Called, Example, tensors
from perceiver_exporters.reference import Reference
from perceiver_runtime.errors import CheckError
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.tensors import Array

TOLERANCE = 1e-5
"""Largest relative L2 distance of a cut from its module, in FP32: the same operations, but in fused kernels."""
ROWS = 2


def check_cut(module: nn.Module, cut: Cut, example: Example) -> None:
    """Run a module and its cut on the example, as it is and at the profile's smallest sizes.

    Args:
        module: The module, in evaluation mode.
        cut: Its cut.
        example: An example call.

    Raises:
        CheckError: Two calls of the module differ (it keeps a state, or draws random numbers), or the cut differs.
    """
    kind = type(module).__name__
    given = tensors(example)
    for smallest in (False, True):
        sized = {name: _sized(tensor, name, cut, smallest=smallest) for name, tensor in given.items()}
        expected, again = (_whole(module, {**example, **sized}) for _ in range(2))
        shown = cut.pipeline.shown
        values = Reference(cut).run({name: tensor.numpy() for name, tensor in sized.items()}).values
        for spec in cut.pipeline.outputs:
            if _distance(again[spec.name], expected[spec.name]) > TOLERANCE:
                raise CheckError(
                    f"{kind} can't be exported: {spec.name} differs between two calls with the same inputs; return "
                    "what it keeps from call to call and take it as an input, and draw no random numbers"
                )
            if (distance := _distance(values[shown[spec.name]], expected[spec.name])) > TOLERANCE:
                raise CheckError(
                    f"{kind} can't be exported: what was traced differs from the module in {spec.name} (relative L2 "
                    f"{distance:.1e}); please report it, and cut the module otherwise (--cut) meanwhile"
                )


def _sized(tensor: Tensor, name: str, cut: Cut, *, smallest: bool) -> Tensor:
    """At most `ROWS` rows of an input; its first entries at the smallest sizes."""
    spec = next(spec for spec in cut.pipeline.inputs if spec.name == name)
    for axis, symbol in enumerate(spec.shape):
        if isinstance(symbol, str):
            bounds = cut.profile.dimensions[symbol]
            limit = bounds.min if smallest else max(ROWS, bounds.min) if axis == 0 else bounds.max
            tensor = tensor.narrow(axis, 0, min(limit, tensor.shape[axis]))
    return tensor


def _whole(module: nn.Module, example: Example) -> Mapping[str, Array]:
    called, given = Called(module, example), [tensor.clone() for tensor in tensors(example).values()]
    try:
        with torch.no_grad():
            results = called(*given)
    except Exception as error:  # whatever the user's code raises
        shapes = ", ".join(str(list(tensor.shape)) for tensor in given)
        raise CheckError(
            f"{type(module).__name__} raises {type(error).__name__} for inputs {shapes}, which the profile allows: "
            f"{str(error)[:300]}; narrow the sizes with --range"
        ) from error
    return {name: result.detach().numpy() for name, result in zip(called.seen.outputs, results, strict=True)}


def _distance(actual: Array, expected: Array) -> float:
    if actual.dtype.kind not in "fc" or not np.isfinite(expected).all():
        return 0.0 if np.array_equal(actual, expected, equal_nan=actual.dtype.kind == "f") else float("inf")
    return relative_l2(actual, expected)
