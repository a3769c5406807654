"""`PartBuilder`: steps of a program as a module of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from perceiver_exporters.cutting.part import Part
from perceiver_exporters.cutting.program import Program, is_size


class PartBuilder:
    """Copies steps into a graph of their own, with all that they read and no input determines."""

    def __init__(self, program: Program, inside: Sequence[fx.Node]) -> None:
        self.program = program
        self.inside = inside
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.scopes: dict[str, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.reads: list[fx.Node] = []

    def build(self, made: Sequence[fx.Node]) -> tuple[list[fx.Node], Part]:
        """The values that the steps read from others, and the module that computes `made` from them."""
        own = set(self.inside)
        for node in self.inside:
            for read in node.all_input_nodes:
                if read in self.program.dependent and read not in own and read not in self.reads:
                    self.reads.append(read)
        order = {node: i for i, node in enumerate(self.program.graph.nodes)}
        self.reads.sort(key=order.__getitem__)
        self._reach_symbols()
        for node in self.reads:
            copy = self.graph.placeholder(node.name)
            copy.meta["val"] = node.meta["val"]
            self.copies[node] = copy
        for node in self.inside:
            self._copy(node)
        results = tuple(self.copies[node] for node in made)
        self.graph.output(results if len(results) != 1 else results[0])
        self.graph.lint()
        return self.reads, Part(self.graph, self.tensors, self.scopes)

    def _reach_symbols(self) -> None:
        """Read an input of the model too where a size is needed that no other value has."""
        needed = {str(n.meta["val"]) for n in self._sizes() if isinstance(n.meta["val"], torch.SymInt)}
        held = {str(size) for node in self.reads for size in node.meta["val"].shape}
        for symbol in sorted(needed & set(self.program.symbols) - held):
            for node in self.program.placeholders:
                if symbol in map(str, node.meta["val"].shape) and node not in self.reads:
                    self.reads.append(node)
                    break

    def _sizes(self) -> set[fx.Node]:
        """Sizes of values that the steps read, directly or through what no input determines."""
        found: set[fx.Node] = set()
        waiting = list(self.inside)
        own = set(self.inside)
        while waiting:
            node = waiting.pop()
            for read in node.all_input_nodes:
                if read in found or (read in self.program.dependent):
                    continue
                if is_size(read) and read.target is torch.ops.aten.sym_size.int:
                    source = read.args[0]
                    if source not in own:
                        found.add(read)
                    continue
                found.add(read)
                waiting.append(read)
        return {node for node in found if is_size(node)}

    def _copy(self, node: fx.Node) -> fx.Node:
        if node in self.copies:
            return self.copies[node]
        if is_size(node) and (known := self._size(node)) is not None:
            self.copies[node] = known
            return known
        if node.op == "get_attr":
            self.tensors[str(node.target)] = self.program.tensors[str(node.target)]
        copy = self.graph.node_copy(node, self._copy)
        copy.meta["val"] = node.meta.get("val")
        if node.op == "call_function":
            self.scopes[copy.name] = self.program.scope(node)
        self.copies[node] = copy
        return copy

    def _size(self, node: fx.Node) -> fx.Node | None:
        """A size, as that of a value which is at hand."""
        for read in self.reads:
            for axis, size in enumerate(read.meta["val"].shape):
                if str(size) == str(node.meta["val"]) and isinstance(size, torch.SymInt):
                    made = self.graph.call_function(torch.ops.aten.sym_size.int, (self.copies[read], axis))
                    made.meta["val"] = size
                    return made
        return None
