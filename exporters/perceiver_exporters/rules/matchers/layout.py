"""Layouts: which dimensions of a source the dimensions of a value are, through Reshape, Transpose and their like.

Every dimension of a value is a list of atoms, from the outermost on. An atom is a dimension of a source, or a factor of
one: (B, M, heads * E) reshaped to (B, M, heads, E) splits the last dimension in two atoms, a transposition moves them,
and a later reshape joins them in one dimension. Layouts are followed at sizes at which no two dimensions are confused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from perceiver_exporters.ir.sized import Shape, Shapes
from perceiver_exporters.rules.matchers.attention import array_of

Integers = npt.NDArray[np.int64]


class LayoutError(Exception):
    """The value is no layout of its source that can be followed."""


@dataclass(eq=False)
class Atom:
    """A dimension of a source, or a factor of one.

    Attributes:
        key: Name of the source's dimension, and the path of splits that led here: equal at other sizes.
        size: Its size, above 1.
        start: First index in the atom that it is a range of.
        parts: What it was split into, from the outermost on.
        index: The one index that was selected.
    """

    key: tuple[str | int, ...]
    size: int
    start: int = 0
    parts: tuple[Atom, ...] = ()
    index: int | None = None

    def leaves(self) -> tuple[Atom, ...]:
        """The atoms that it was split into, without those of which one index was selected."""
        if self.index is not None:
            return ()
        return tuple(leaf for part in self.parts for leaf in part.leaves()) if self.parts else (self,)

    def split(self, outer: int) -> tuple[Atom, Atom]:
        """Split into `outer` times the rest."""
        made = Atom((*self.key, 0), outer), Atom((*self.key, 1), self.size // outer)
        self.parts = made
        return made

    def range(self, start: int, size: int) -> Atom:
        """The atom of indices from `start` on."""
        made = Atom((*self.key, "from", start), size, start)
        self.parts = (made,)
        return made

    def indices(self, order: Sequence[Atom]) -> Integers:
        """Index in this atom for every combination of the leaves in `order`, flattened."""
        shape = tuple(leaf.size for leaf in order)
        places = {id(leaf): np.arange(leaf.size).reshape([-1 if o is leaf else 1 for o in order]) for leaf in order}
        return np.broadcast_to(self._index(places), shape).reshape(-1)

    def _index(self, places: Mapping[int, Integers]) -> Integers:
        if self.index is not None:
            return np.array(self.index)
        if len(self.parts) == 1:
            return self.parts[0]._index(places) + self.parts[0].start
        if self.parts:
            outer, inner = self.parts
            return outer._index(places) * inner.size + inner._index(places)
        return places[id(self)]


Dimension = list[Atom]


@dataclass
class Layout:
    """The atoms of each dimension of a value. Atoms may be split later: `settled` has the leaves."""

    dims: list[Dimension] = field(default_factory=list)

    @staticmethod
    def of(name: str, shape: Shape) -> Layout:
        """The layout of a source itself."""
        return Layout([[Atom((name, i), size)] if size != 1 else [] for i, size in enumerate(shape)])

    def settled(self) -> list[Dimension]:
        """The dimensions with every atom replaced by its leaves."""
        return settled(self.dims)

    def after(self, node: ir.Node, output: int, shapes: Shapes) -> Layout:
        """The layout of a node's output, given that of its first input. Raises LayoutError."""
        shape = shapes.get(str(node.outputs[output].name))
        step = STEPS.get(node.op_type) if not node.domain else None
        if shape is None or step is None:
            raise LayoutError
        return step(Layout(self.settled()), node, output, shape)


def settled(dims: Sequence[Dimension]) -> list[Dimension]:
    """The dimensions with every atom replaced by its leaves."""
    return [[leaf for atom in dim for leaf in atom.leaves()] for dim in dims]


def extent(atoms: Sequence[Atom]) -> int:
    """Size of a dimension."""
    return math.prod(atom.size for atom in atoms)


def regroup(atoms: Sequence[Atom], shape: Shape) -> list[Dimension]:
    """Distribute atoms over dimensions of these sizes, splitting atoms where needed. Raises LayoutError."""
    left, made = list(atoms), []
    for size in shape:
        dim: Dimension = []
        while extent(dim) != size:
            missing, rest = divmod(size, extent(dim))
            if not left or rest:
                raise LayoutError
            first = left.pop(0)
            if missing % first.size == 0:
                dim.append(first)
            elif first.size % missing == 0:
                outer, inner = first.split(missing)
                dim.append(outer)
                left.insert(0, inner)
            else:
                raise LayoutError
        made.append(dim)
    if left:
        raise LayoutError
    return made


def _reshape(layout: Layout, node: ir.Node, _: int, shape: Shape) -> Layout:
    return Layout(regroup([atom for dim in layout.dims for atom in dim], shape))


def _transpose(layout: Layout, node: ir.Node, _: int, shape: Shape) -> Layout:
    perm = node.attributes.get_ints("perm") or tuple(reversed(range(len(shape))))
    return Layout([layout.dims[i] for i in perm])


def _expand(layout: Layout, node: ir.Node, _: int, shape: Shape) -> Layout:
    dims: list[Dimension] = [*([] for _ in range(len(shape) - len(layout.dims))), *layout.dims]
    return Layout(
        [
            dim if extent(dim) == size else [Atom(("repeated", str(node.name), i), size)]
            for i, (dim, size) in enumerate(zip(dims, shape, strict=True))
        ]
    )


def _split(layout: Layout, node: ir.Node, output: int, shape: Shape) -> Layout:
    axis = node.attributes.get_int("axis", 0) % len(shape)
    sizes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    whole = extent(layout.dims[axis])
    each = -(-whole // len(node.outputs))
    start = int(sizes[:output].sum()) if sizes is not None else each * output
    return _ranged(layout, axis, start, shape[axis])


def _slice(layout: Layout, node: ir.Node, _: int, shape: Shape) -> Layout:
    given = [array_of(value) for value in node.inputs[1:]]
    if len(given) < 3 or any(a is None or a.size != 1 for a in given):
        raise LayoutError
    start, _end, axis, *step = (int(a.item()) for a in given if a is not None)
    whole = extent(layout.dims[axis])
    if step not in ([], [1]):
        raise LayoutError
    return _ranged(layout, axis % len(shape), start + whole if start < 0 else start, shape[axis])


def _gather(layout: Layout, node: ir.Node, _: int, shape: Shape) -> Layout:
    index, axis = array_of(node.inputs[1]), node.attributes.get_int("axis", 0) % len(layout.dims)
    if index is None or index.ndim:
        raise LayoutError
    whole = extent(layout.dims[axis])
    picked = _ranged(layout, axis, int(index) % whole, 1)
    return Layout([dim for i, dim in enumerate(picked.dims) if i != axis])


def _ranged(layout: Layout, axis: int, start: int, size: int) -> Layout:
    """A range of one dimension: an index of its outermost factor, or a range of its only atom."""
    dim, dims = layout.dims[axis], list(layout.dims)
    whole = extent(dim)
    if size == whole:
        return layout
    if start % size == 0 and whole % size == 0:
        try:
            outer, inner = regroup(dim, (whole // size, size))
        except LayoutError:
            outer, inner = [], []
        if len(outer) == 1:
            outer[0].index = start // size
            dims[axis] = inner
            return Layout(dims)
    if len(dim) != 1 or dim[0].parts:
        raise LayoutError
    dims[axis] = [dim[0].range(start, size)]
    return Layout(dims)


STEPS: Mapping[str, Callable[[Layout, ir.Node, int, Shape], Layout]] = {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Identity": lambda layout, *_: layout,
    "Transpose": _transpose,
    "Expand": _expand,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
}
"""By operator: the layout of its output."""
