"""Nodes that turn one layout of a tensor into another: Reshape and Transpose, as few as that takes."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, ints
from perceiver_exporters.rules.matchers.layout import Atom, Dimension, Integers, LayoutError, extent, settled


@dataclass(frozen=True)
class Arranger:
    """Arranges tensors; `dynamic` has the ids of the atoms whose sizes are known only at run time."""

    build: NodeBuilder
    dynamic: Set[int]

    def __call__(self, value: ir.Value, before: Sequence[Dimension], after: Sequence[Dimension], name: str) -> ir.Value:
        """The value, whose dimensions are `before`, with the dimensions `after`.

        Raises:
            LayoutError: A shape can't be written: several of its dimensions are known only at run time.
        """
        before, after = settled(before), settled(after)
        stored, wanted = [a for dim in before for a in dim], [a for dim in after for a in dim]
        if {id(a) for a in stored} != {id(a) for a in wanted} or len(stored) != len(wanted):
            raise LayoutError
        order = [next(i for i, a in enumerate(stored) if a is atom) for atom in wanted]
        if order == sorted(order):
            return self.reshaped(value, before, after, name)
        single = self.reshaped(value, before, parts := _apart(before, after), name)
        perm = [next(i for i, dim in enumerate(parts) if same(dim, each)) for each in _apart(after, before)]
        moved = self.build("Transpose", single, perm=perm, name=name)
        return self.reshaped(moved, [parts[i] for i in perm], after, name)

    def reshaped(self, value: ir.Value, before: Sequence[Dimension], after: Sequence[Dimension], name: str) -> ir.Value:
        """The same where both have their atoms in one order."""
        before, after = settled(before), settled(after)
        if len(before) == len(after) and all(map(same, before, after)):
            return value
        sizes: list[int | ir.Value] = [self._size(dim, i, value, before) for i, dim in enumerate(after)]
        if all(isinstance(size, int) for size in sizes):
            return self.build("Reshape", value, ints(*(size for size in sizes if isinstance(size, int))), name=name)
        parts = [size if isinstance(size, ir.Value) else ints(size) for size in sizes]
        return self.build("Reshape", value, self.build("Concat", *parts, axis=0, name="shape"), name=name)

    def _size(self, dim: Dimension, place: int, value: ir.Value, before: Sequence[Dimension]) -> int | ir.Value:
        """A dimension for Reshape: its number, 0 to copy the one at its place, or the size of another one."""
        if not any(id(atom) in self.dynamic for atom in dim):
            return extent(dim)
        found = next((i for i, old in enumerate(before) if same(old, dim)), None)
        if found == place:
            return 0
        if found is not None:
            return self.build("Shape", value, start=found, end=found + 1, name="size")
        return -1


def same(one: Dimension, other: Dimension) -> bool:
    """Whether two dimensions are the same atoms."""
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def columns(atoms: Sequence[Atom], order: Sequence[Atom]) -> Integers:
    """For each index of the dimension `order`: the index in the dimension `atoms`, which has the same leaves."""
    shape = [atom.size for atom in atoms]
    places = np.arange(int(np.prod(shape))).reshape(shape)
    perm = [next(i for i, a in enumerate(atoms) if a is atom) for atom in order]
    return np.ascontiguousarray(places.transpose(perm)).reshape(-1)


def _apart(dims: Sequence[Dimension], others: Sequence[Dimension]) -> list[Dimension]:
    """The atoms of these dimensions, those together that are neighbours in both layouts."""
    neighbours = {(id(a), id(b)) for dim in others for a, b in pairwise(dim)}
    made: list[Dimension] = []
    for dim in dims:
        for before, atom in zip([None, *dim], dim, strict=False):
            if before is not None and (id(before), id(atom)) in neighbours:
                made[-1].append(atom)
            else:
                made.append([atom])
    return made
