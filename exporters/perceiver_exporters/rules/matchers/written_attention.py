"""Matcher for attention as people write it: by what its dimensions are, whatever the operators that arrange them.

The dimensions of queries, keys and values are traced back to those of the linear layers that project them
(`operands`), and aligned: an axis of the products, such as B * heads, is divided where the operands' own dimensions
meet. Each part is batch (rows of what is projected), a head (channels of the projections), or a group (heads of queries
that share keys and values).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx_ir as ir

from perceiver_exporters.ir.sized import Shapes
from perceiver_exporters.rules.matchers.attention import array_of, operand
from perceiver_exporters.rules.matchers.layout import Atom, Dimension, Layout, LayoutError, extent, regroup, settled
from perceiver_exporters.rules.matchers.linear import Linear, only_reader, reading
from perceiver_exporters.rules.matchers.operands import CHANNEL, ROWS, Operand, candidates
from perceiver_exporters.rules.matchers.score_path import ScorePath

BATCH, HEAD, GROUP = "batch", "head", "group"
MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


@dataclass(frozen=True)
class Part:
    """A part of the batch axes of both products; an operand without an atom is repeated over it."""

    kind: str
    query: Atom | None
    key: Atom | None
    value: Atom | None
    made: Atom


@dataclass(frozen=True)
class Ending:
    """What follows the second product: moves, a linear layer that reads all heads, moves.

    Attributes:
        guard: A Where that sets rows without a key to a number, before anything is moved.
        read: Layout of what the linear layer reads, if there is one.
        linear: The output projection.
        layout: Layout of `value`.
        value: The last value, which all readers read.
    """

    guard: ir.Node | None
    read: list[Dimension]
    linear: Linear | None
    layout: list[Dimension]
    value: ir.Value


@dataclass(frozen=True)
class WrittenAttention:
    """An attention at certain sizes: its operands, and the parts of its batch axes from the outermost on.

    Attributes:
        scores: Dimensions of the scores, by the names of the result's.
        rows: The queries, without the groups that may be rows as well.
        width: Channels of one head of the result.
    """

    path: ScorePath
    query: Operand
    key: Operand
    value: Operand
    parts: tuple[Part, ...]
    scores: list[Dimension]
    ending: Ending
    rows: Dimension
    width: Dimension

    def of(self, *kinds: str) -> list[Part]:
        """The parts of these kinds, in their order."""
        return [part for kind in kinds for part in self.parts if part.kind == kind]

    def listing(self) -> list[tuple[object, ...]]:
        """All dimensions by name: equal at other sizes, unless the attention is another there."""
        return [*(tuple(atom.key for atom in dim) for dim in self._dims()), tuple(part.kind for part in self.parts)]

    def atoms(self) -> list[Atom]:
        """All atoms, in the order of `listing`."""
        return [atom for dim in self._dims() for atom in dim]

    def _dims(self) -> list[Dimension]:
        operands = (self.query, self.key, self.value)
        traced = [dim for one in operands for dim in (*one.origin.settled(), *one.layout.settled())]
        return [*traced, *settled([*self.scores, *self.ending.read, *self.ending.layout, self.rows, self.width])]


def written_attention(path: ScorePath, shapes: Shapes) -> WrittenAttention:
    """The attention on a path at these sizes.

    Raises:
        LayoutError: Its operands are no layouts of linear layers that can be followed, or of no batch and heads.
    """
    query = _chosen(candidates(operand(path.scores, 0), shapes), transposed=False)
    key = _chosen(candidates(operand(path.scores, 1), shapes), transposed=True)
    value = _chosen(candidates(operand(path.weighted, 1), shapes), transposed=False)
    scores_shape, made_shape = (shapes.get(str(node.outputs[0].name)) for node in (path.scores, path.weighted))
    weights = shapes.get(str(operand(path.weighted, 0).name))
    if scores_shape is None or made_shape is None or weights != scores_shape:
        raise LayoutError
    made = Layout.of("made", (*made_shape, scores_shape[-1]))
    groups, rows = _groups_of_rows(query, made)
    parts = (*_parts(query, key, value, made), *groups)
    _check(query, len(groups), rows=-2, channels=-1)
    _check(key, 0, rows=-1, channels=-2)
    _check(value, 0, rows=-2, channels=-1)
    channels = {id(part.made) for part in parts if part.kind != BATCH} | {id(atom) for atom in made.settled()[-2]}
    ending = _ending(path, made, shapes, channels)
    dims = made.settled()
    rows = settled([rows])[0]
    return WrittenAttention(path, query, key, value, parts, [*dims[:-2], dims[-1]], ending, rows, dims[-2])


def _chosen(found: Sequence[Operand], *, transposed: bool) -> Operand:
    """The nearest source that stores batch and rows in the order of the operand, or the nearest."""

    def in_order(one: Operand) -> bool:
        *batch, first, second = one.layout.settled()
        wanted = [atom for dim in (*batch, second if transposed else first) for atom in dim]
        return [atom for atom in wanted if atom.key[0] == ROWS] == one.rows()

    return next(filter(in_order, found), found[0])


def _parts(query: Operand, key: Operand, value: Operand, made: Layout) -> tuple[Part, ...]:
    rank = len(made.dims) - 3
    operands = [o.layout.settled()[:-2] for o in (query, key, value)]
    if any(len(dims) > rank for dims in operands):
        raise LayoutError
    padded = [[*([] for _ in range(rank - len(dims))), *dims] for dims in operands]
    found = []
    for axis in range(rank):
        lists = [dims[axis] for dims in padded] + [made.dims[axis]]
        sizes = _common([dim for dim in lists if dim])
        columns = [_single(dim, sizes) if dim else [None] * len(sizes) for dim in lists]
        for q, k, v, m in zip(*columns, strict=True):
            assert m is not None  # the result has every size
            found.append(_part(q, k, v, m))
    return tuple(found)


def _common(dims: Sequence[Dimension]) -> tuple[int, ...]:
    """Sizes of the parts that an axis is divided in where any operand's dimensions meet."""
    if len({extent(dim) for dim in dims}) > 1:
        raise LayoutError
    ends = sorted({extent(dim[: i + 1]) for dim in dims for i in range(len(dim))})
    if any(after % before for before, after in pairwise(ends)):
        raise LayoutError
    return tuple(after // before for before, after in pairwise([1, *ends]))


def _single(dim: Dimension, sizes: tuple[int, ...]) -> list[Atom | None]:
    grouped = regroup(dim, sizes)
    if any(len(each) != 1 for each in grouped):
        raise LayoutError
    return [each[0] for each in grouped]


def _part(query: Atom | None, key: Atom | None, value: Atom | None, made: Atom) -> Part:
    """The kind of a part: batch, unless an operand has channels there."""
    kinds = [atom.key[0] if atom is not None else "repeated" for atom in (query, key, value)]
    if CHANNEL not in kinds:
        if "repeated" in kinds[1:]:
            raise LayoutError
        return Part(BATCH, query if kinds[0] == ROWS else None, key, value, made)
    if kinds[0] == "repeated":
        raise LayoutError
    if kinds[1:] == ["repeated", "repeated"]:
        return Part(GROUP, query, None, None, made)
    if "repeated" in kinds:
        raise LayoutError
    return Part(HEAD, query, key, value, made)


def _groups_of_rows(query: Operand, made: Layout) -> tuple[list[Part], Dimension]:
    """Groups of heads that are the outermost rows already, and the other rows of the result."""
    dim = query.layout.settled()[-2]
    heads = [atom for atom in dim if atom.key[0] == CHANNEL]
    if not heads or len(heads) == len(dim):
        return [], made.dims[-3]
    sizes = (*(atom.size for atom in heads), extent(dim) // extent(heads))
    *atoms, rows = regroup(made.settled()[-3], sizes)
    if any(len(each) != 1 for each in atoms):
        raise LayoutError
    return [Part(GROUP, atom, None, None, each[0]) for atom, each in zip(heads, atoms, strict=True)], rows


def _check(one: Operand, groups: int, rows: int, channels: int) -> None:
    """Raise LayoutError unless rows are rows of what is projected, and channels channels of the projection."""
    dims = one.layout.settled()
    if one.linear is not None and not (
        all(atom.key[0] == ROWS for atom in dims[rows][groups:])
        and all(atom.key[0] == CHANNEL for atom in (*dims[rows][:groups], *dims[channels]))
    ):
        raise LayoutError


def _ending(path: ScorePath, made: Layout, shapes: Shapes, channels: set[int]) -> Ending:
    dims = made.settled()
    start = Layout(dims[:-1])
    value, guard = path.weighted.outputs[0], None
    reader = only_reader(value)
    if reader is not None and reader.op_type == "Where" and reader.inputs[1] is value and _number(reader.inputs[2]):
        guard, value = reader, reader.outputs[0]
    moved, layout = _moved(value, start, shapes)
    linear, read = reading(moved), layout.settled()
    if linear is None or {id(atom) for atom in read[-1]} != channels:
        return Ending(guard, [], None, read, moved)
    answer = Layout([*read[:-1], [Atom(("answer",), linear.weight.shape[1])]])
    last, final = _moved(linear.made, answer, shapes)
    return Ending(guard, read, linear, final.settled(), last)


def _moved(value: ir.Value, layout: Layout, shapes: Shapes) -> tuple[ir.Value, Layout]:
    """The last value that only moves another, and its layout."""
    while (node := only_reader(value)) is not None and node.op_type in MOVES and node.inputs[0] is value:
        try:
            layout = layout.after(node, 0, shapes)
        except LayoutError:
            break
        value = node.outputs[0]
    return value, layout


def _number(value: ir.Value | None) -> bool:
    array = array_of(value)
    return array is not None and array.size == 1
