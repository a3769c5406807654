"""`Part`: a piece of a traced program as a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Scope(nn.Module):
    """The place of a module of the traced model: holds its tensors, and runs its operations for hooks to see."""

    def forward(self, run: Callable[[], Any]) -> Any:
        """Run one operation."""
        return run()


class Part(nn.Module):
    """Operations of a traced program, each run in the scope of the module that it was traced in.

    Parameters have the names that they have in the traced model, and operations run inside modules of the same paths,
    so that hooks, ONNX node names and plans by layer see the user's own module paths.

    Args:
        graph: Placeholders, `get_attr` nodes whose targets are names of `tensors`, ATen operations, one output.
        tensors: Parameters and buffers by name.
        scopes: Module path of each operation, by node name.
    """

    def __init__(self, graph: fx.Graph, tensors: Mapping[str, Tensor], scopes: Mapping[str, str]) -> None:
        super().__init__()
        self.graph = graph
        self.scopes = dict(scopes)
        self.dtype = torch.float32
        for name, tensor in tensors.items():
            path, _, last = name.rpartition(".")
            place = self._scope(path)
            if isinstance(tensor, nn.Parameter):
                place.register_parameter(last, tensor)
            else:
                place.register_buffer(last, tensor)
        for path in self.scopes.values():
            self._scope(path)
        self.creators = frozenset(node.name for node in graph.nodes if creates(node))

    def forward(self, *inputs: Tensor) -> Any:
        """Run the operations in order."""
        return _Run(self, inputs[0].device).run(*inputs)

    def _scope(self, path: str) -> nn.Module:
        place: nn.Module = self
        for name in filter(None, path.split(".")):
            if name not in place._modules:
                place.add_module(name, Scope())
            place = getattr(place, name)
        return place

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Part:
        """Types that the trace made constants follow the type of the parameters."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        asked = fn(torch.zeros(1, dtype=self.dtype)).dtype
        if asked != self.dtype and asked in _TYPES:
            for node in self.graph.nodes:
                node.args = fx.node.map_aggregate(node.args, lambda a: asked if a is self.dtype else a)
                node.kwargs = fx.node.map_aggregate(node.kwargs, lambda a: asked if a is self.dtype else a)
            self.dtype = asked
        return self


def creates(node: fx.Node) -> bool:
    """Whether a node makes a tensor from sizes and numbers alone."""
    schema, value = getattr(node.target, "_schema", None), node.meta.get("val")
    if schema is None or not isinstance(value, Tensor):
        return False
    reads = any(isinstance(each.meta.get("val"), Tensor) for each in node.all_input_nodes)
    return not reads and any(a.name == "device" for a in schema.arguments)


class _Run(fx.Interpreter):
    def __init__(self, part: Part, device: torch.device) -> None:
        super().__init__(part, graph=part.graph)
        self.device = device

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        part = self.module
        assert isinstance(part, Part)
        if n.name in part.creators:
            kwargs = {**kwargs, "device": self.device}

        def run() -> Any:
            return n.target(*args, **kwargs)  # type: ignore[operator]

        path = list(filter(None, part.scopes.get(n.name, "").split(".")))
        for depth in range(len(path), 0, -1):
            run = _inside(part.get_submodule(".".join(path[:depth])), run)
        return run()


def _inside(scope: nn.Module, run: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: scope(run)
