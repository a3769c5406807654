"""Memory that ONNX Runtime needs to run a component, estimated from shapes.

The module runs on the meta device, and every operation is recorded with the storages that it reads and creates. A value
is live from the operation that creates it to the last one that reads it. Results do not reuse the memory of operands:
with symbolic dimensions ONNX Runtime can't tell that they fit. Two effects of the exporter are modelled:

- a softmax reads all scores and creates as many weights, unless attention is one operator (`attention_form`);
- scores of chunked inputs or queries are the sum of two parts: of content and of positions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from perceiver_exporters.component import Component
from perceiver_exporters.memory.arena import Arena, Block
from perceiver_exporters.rules.attention.attention_form import on_processors
from perceiver_exporters.shapes import Shape
from perceiver_runtime.tensors import Profile

TRANSPOSITIONS = (Tensor.transpose, Tensor.permute)
PRODUCTS = (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default)


@dataclass(frozen=True)
class Operation:
    """Storages, by identity, that an operation reads and creates."""

    reads: frozenset[int]
    makes: Mapping[int, int]
    """Bytes by storage."""


def peak(component: Component, shapes: Mapping[str, Shape], *, split: bool = False) -> int:
    """Bytes that one component call needs besides its inputs.

    Args:
        component: Module and input specs.
        shapes: Shapes of the inputs by name.
        split: Whether scores are the sum of two parts, as in chunked components.

    Returns:
        Peak bytes of ONNX Runtime's arena.
    """
    inputs = [
        torch.empty(shapes[spec.name], dtype=getattr(torch, spec.dtype), device="meta") for spec in component.inputs
    ]
    module = on_meta(component.module)
    with torch.no_grad(), Recorder(split=split) as recorder, AsExported(inputs, recorder):
        made = module(*inputs)
    kept = frozenset(_identity(tensor) for tensor in tree_leaves(made))
    return held(recorder.operations, kept)


def counted_flops(component: Component, profile: Profile) -> int:
    """FLOPs of one call at the profile's typical sizes, as PyTorch counts them: matrix products and convolutions."""
    sizes = {name: bounds.opt for name, bounds in profile.dimensions.items()}
    inputs = (torch.empty(s.resolve(sizes), dtype=getattr(torch, s.dtype), device="meta") for s in component.inputs)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        on_meta(component.module).requires_grad_(False)(*inputs)
    return counter.get_total_flops()


def held(operations: list[Operation], kept: frozenset[int]) -> int:
    """Bytes of the arena after two runs of these operations; storages in `kept` live to the end of each run.

    The second run may need more: free blocks that the first one left do not fit all its requests.
    """
    last = {key: index for index, each in enumerate(operations) for key in (*each.makes, *each.reads)}
    last |= {key: len(operations) - 1 for key in kept}
    arena = Arena()
    for _ in range(2):
        blocks: dict[int, Block] = {}
        for index, each in enumerate(operations):
            blocks |= {key: arena.allocate(size) for key, size in each.makes.items()}
            for key in [key for key in blocks if last[key] == index]:
                arena.release(blocks.pop(key))
    return arena.touched


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of the module on the meta device, with the same tensors shared."""
    parameters = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in module.parameters()}
    buffers = {id(b): torch.empty_like(b, device="meta") for b in module.buffers()}
    return copy.deepcopy(module, parameters | buffers)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records operations in order, and holds their storages so that identities stay unique."""

    def __init__(self, *, split: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._split = split
        self._known: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record the storages that `func` reads and creates; views create none."""
        given = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
        made = func(*args, **(kwargs or {}))
        reads = {_identity(tensor) for tensor in given}
        fresh = {}
        for tensor in tree_leaves(made):
            key = _identity(tensor)
            if key not in reads and key not in self._known:
                self._known[key] = tensor
                fresh[key] = tensor.untyped_storage().nbytes()
        if self._split and func in PRODUCTS and made.nbytes > max(tensor.nbytes for tensor in given):
            fresh = {key: 2 * size for key, size in fresh.items()}  # scores of content and of positions
        self.operations.append(Operation(frozenset(reads), fresh))
        return made

    def scratch(self, operands: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Record the operands' copies inside a fused operator, and return the first operand."""
        key = -len(self.operations) - 1
        size = sum(tensor.nbytes for tensor in operands)
        self.operations.append(Operation(frozenset(map(_identity, operands)), {key: 2 * size}))
        return operands[0]


class AsExported(TorchFunctionMode):
    """Replaces attention by what is exported: products and a softmax, or one operator that works in blocks."""

    def __init__(self, inputs: list[Tensor], recorder: Recorder) -> None:
        super().__init__()
        self._inputs = {_identity(tensor) for tensor in inputs}
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace attention, and copy the result of transpositions."""
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        made = func(*args, **(kwargs or {}))
        return made.contiguous() if func in TRANSPOSITIONS else made

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        sizes = (query.shape[2], key.shape[2], query.shape[3], value.shape[3])
        if attn_mask is None and _identity(key) not in self._inputs and on_processors(sizes, "fp32"):
            return self._recorder.scratch((query, key, value)).new_empty(*query.shape[:3], value.shape[3])
        scores = (query * 1.0) @ key.transpose(-1, -2)
        weights = torch.softmax(scores if attn_mask is None else scores + attn_mask, -1)
        return weights @ value


def _identity(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
