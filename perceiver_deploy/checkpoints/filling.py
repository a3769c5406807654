"""Build a reference model on the meta device, check a checkpoint's tensors against it, then assign them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_deploy.checkpoints.files.tensors import Weights
from perceiver_deploy.checkpoints.renaming import Rule, place
from perceiver_runtime.errors import CheckpointError

STORED = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types that a weight may be stored in; it is computed with in FP32."""
CHUNK = 1 << 24
"""Values that are examined at a time."""


def filled(
    build: Callable[[Any], nn.Module], config: Any, weights: Weights, rules: Sequence[Rule], where: str
) -> nn.Module:
    """A model with a checkpoint's weights in FP32, in evaluation mode; each tensor is used exactly once.

    Memory is allocated for the checkpoint's own sizes only.

    Raises:
        CheckpointError: No model can be built from the config (which is at `where`), names or shapes differ, or values
            are integers, NaN or infinite.
    """
    module = blank(build, config, where)
    placed = place(weights, rules, module.state_dict())
    state = {
        name: _values(tensor.detach(), module.state_dict()[name], f"{weights.files[source]}: {source}")
        for name, (source, tensor) in placed.items()
    }
    module.load_state_dict(state, assign=True)
    return module.eval()


def blank(build: Callable[[Any], nn.Module], config: Any, where: str) -> nn.Module:
    """A model of these sizes on the meta device. Raises CheckpointError if the sizes are invalid."""
    try:
        with torch.device("meta"):
            return build(config)
    except (ValueError, RuntimeError, ArithmeticError, LookupError, TypeError, MemoryError) as error:
        raise CheckpointError(f"{where}: no model can be built of these sizes; {error}") from error


def _values(tensor: Tensor, wanted: Tensor, name: str) -> Tensor:
    """A tensor in the type that the model has, contiguous and of its own."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        raise CheckpointError(f"{name}: expected a dense tensor with values, got {_form(tensor)} of {dtype}")
    if not wanted.dtype.is_floating_point:
        if tensor.dtype != wanted.dtype:
            raise CheckpointError(f"{name}: expected {str(wanted.dtype).removeprefix('torch.')}, got {dtype}")
        return tensor.clone(memory_format=torch.contiguous_format)
    if tensor.dtype not in STORED:
        raise CheckpointError(
            f"{name}: expected weights in float32, float16, bfloat16 or float64, got {dtype}; a quantised checkpoint "
            "has no meaning without its scales: give the checkpoint from before it was quantised"
        )
    values = tensor.to(wanted.dtype, memory_format=torch.contiguous_format, copy=True)
    if wrong := _not_finite(values):
        stored = _not_finite(tensor)
        kind = "NaN or infinite; its training diverged" if stored else "beyond the range of float32"
        raise CheckpointError(f"{name}: expected finite weights; {stored or wrong:,} of {tensor.numel():,} are {kind}")
    return values


def _not_finite(tensor: Tensor) -> int:
    flat = tensor.reshape(-1)
    chunks = (flat[start : start + CHUNK] for start in range(0, flat.numel(), CHUNK))
    return sum(chunk.numel() - int(torch.isfinite(chunk).count_nonzero()) for chunk in chunks)


def _form(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "one without values (meta)"
    return "a quantised one" if tensor.is_quantized else f"one in {str(tensor.layout).removeprefix('torch.')} form"
