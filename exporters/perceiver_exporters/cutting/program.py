"""`Program`: a module traced whole, as a list of ATen operations over named inputs."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, fx, nn

from perceiver_exporters.cutting.call import Called, Example, tensors
from perceiver_exporters.cutting.export_program import export_program
from perceiver_exporters.cutting.part import creates
from perceiver_exporters.cutting.regions import inline_regions
from perceiver_runtime.errors import CheckError
from perceiver_runtime.tensors import Dimension, Profile, TensorSpec

_WRAPPER = "module."
_ASSERTIONS = ("_assert", "sym_constrain_range", "_guards_fn")


@dataclass(frozen=True)
class Program:
    """A traced module.

    Attributes:
        graph: Placeholders, `get_attr` nodes, operations without side effects, one output.
        tensors: Parameters, buffers and constants by the target of their `get_attr` node.
        inputs: Specs of the inputs, in the order of the placeholders.
        outputs: Names of the results, in the order of the output node's arguments.
        profile: Ranges of the symbolic dimensions.
    """

    graph: fx.Graph
    tensors: Mapping[str, Tensor]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    profile: Profile

    def computed(self) -> Program:
        """The program without results that are inputs, or that no input determines.

        Raises CheckError if none is left.
        """
        kept = [i for i, node in enumerate(self.results) if node in self.steps]
        if not kept:
            raise CheckError(f"expected a result that depends on the inputs, got {', '.join(self.outputs)}")
        output = next(node for node in self.graph.nodes if node.op == "output")
        output.args = (tuple(self.results[i] for i in kept),)
        for node in reversed(list(self.graph.nodes)):
            if node.op in ("call_function", "get_attr") and not node.users:
                self.graph.erase_node(node)
        return dataclasses.replace(self, outputs=tuple(self.outputs[i] for i in kept))

    @cached_property
    def placeholders(self) -> tuple[fx.Node, ...]:
        """The nodes of the inputs."""
        return tuple(node for node in self.graph.nodes if node.op == "placeholder")

    @cached_property
    def results(self) -> tuple[fx.Node, ...]:
        """The nodes of the results."""
        return tuple(next(node for node in self.graph.nodes if node.op == "output").args[0])

    @cached_property
    def dependent(self) -> frozenset[fx.Node]:
        """Nodes whose content depends on the inputs, and not on their sizes alone."""
        found = set(self.placeholders)
        for node in self.graph.nodes:
            if not is_size(node) and any(each in found for each in node.all_input_nodes):
                found.add(node)
        return frozenset(found)

    @cached_property
    def steps(self) -> tuple[fx.Node, ...]:
        """The operations that depend on the inputs, in order. All others are computed where they are read."""
        return tuple(n for n in self.graph.nodes if n.op == "call_function" and n in self.dependent)

    @cached_property
    def symbols(self) -> Mapping[str, str]:
        """Names of the symbolic dimensions by PyTorch's symbols."""
        return {
            str(size): dimension
            for node, spec in zip(self.placeholders, self.inputs, strict=True)
            for size, dimension in zip(node.meta["val"].shape, spec.shape, strict=True)
            if isinstance(dimension, str)
        }

    def spec(self, node: fx.Node, name: str) -> TensorSpec | None:
        """The spec of a value; None if a dimension is no number and none of the inputs'."""
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return None
        shape: list[Dimension] = []
        for size in value.shape:
            if not isinstance(size, int) and str(size) not in self.symbols:
                return None
            shape.append(size if isinstance(size, int) else self.symbols[str(size)])
        return TensorSpec(name, str(value.dtype).removeprefix("torch."), tuple(shape))

    def scope(self, node: fx.Node) -> str:
        """Path of the module that an operation was traced in."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = next((p for p, _ in reversed(stack) if not p.startswith("_empty")), "")
        return path.split("@")[0].removeprefix("module").removeprefix(".")


def is_size(node: fx.Node) -> bool:
    """Whether a node is a size or computed from sizes."""
    return isinstance(node.meta.get("val"), int | torch.SymInt | torch.SymBool | torch.SymFloat | float | bool)


def capture(module: nn.Module, example: Example, inputs: tuple[TensorSpec, ...], profile: Profile) -> Program:
    """Trace a module.

    Args:
        module: The module, in evaluation mode.
        example: An example call.
        inputs: Specs of its tensor inputs, with symbolic dimensions.
        profile: Ranges of these dimensions.

    Returns:
        The program.

    Raises:
        CheckError: PyTorch can't trace the module over these ranges; the message names the line of the user's code.
    """
    called = Called(module, example).eval()
    given = tuple(_sized(t, s, profile) for t, s in zip(tensors(example).values(), inputs, strict=True))
    exported = export_program(called, given, inputs, profile)
    lifted = exported.module(check_guards=False)
    assert isinstance(lifted, fx.GraphModule)
    inline_regions(lifted)
    return Program(_plain(lifted.graph), _tensors(lifted), inputs, called.seen.outputs, profile).computed()


def _sized(tensor: Tensor, spec: TensorSpec, profile: Profile) -> Tensor:
    """The tensor with at least two entries along its symbolic dimensions: PyTorch takes one for a constant."""
    for axis, symbol in enumerate(spec.shape):
        if isinstance(symbol, str) and tensor.shape[axis] < 2 <= profile.dimensions[symbol].max:
            tensor = tensor.repeat_interleave(2, dim=axis)
    return tensor


def _plain(graph: fx.Graph) -> fx.Graph:
    """The graph without assertions and whatever is unused."""
    for node in list(graph.nodes):
        name = getattr(node.target, "__name__", str(node.target))
        if node.op in ("call_function", "call_module") and name.startswith(_ASSERTIONS) and not node.users:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if node.op == "call_function" and _untyped(node):
            node.kwargs = {**node.kwargs, "dtype": node.meta["val"].dtype}
        if node.target is torch.ops.aten.view.default:  # the strides of the trace need not hold elsewhere
            node.target = torch.ops.aten.reshape.default
        if node.op == "call_function":
            _free_of_devices(node)
        if node.op == "get_attr":
            node.target = node.target.removeprefix(_WRAPPER)
    return graph


def _free_of_devices(node: fx.Node) -> None:
    """Let an operation run where its operands are, not where it was traced."""
    node.kwargs = {name: value for name, value in node.kwargs.items() if name != "device"}
    if node.target is torch.ops.aten.to.device:
        tensor, _, dtype, *rest = node.args
        node.target, node.args = torch.ops.aten.to.dtype, (tensor, dtype, *rest)


def _untyped(node: fx.Node) -> bool:
    """Whether a node makes a floating-point tensor of PyTorch's default type."""
    return creates(node) and node.meta["val"].is_floating_point() and "dtype" not in node.kwargs


def _tensors(module: fx.GraphModule) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            name = node.target if isinstance(node.target, str) else ""
            found[name] = operator.attrgetter(f"{_WRAPPER}{name}" if _has(module, f"{_WRAPPER}{name}") else name)(
                module
            )
    return found


def _has(module: nn.Module, path: str) -> bool:
    try:
        operator.attrgetter(path)(module)
    except AttributeError:
        return False
    return True


def example_arrays(inputs: tuple[TensorSpec, ...], profile: Profile) -> dict[str, np.ndarray]:
    """Ones in the shapes of the specs at the profile's typical sizes."""
    sizes = {name: r.opt for name, r in profile.dimensions.items()}
    return {spec.name: np.ones(spec.resolve(sizes), spec.dtype) for spec in inputs}
