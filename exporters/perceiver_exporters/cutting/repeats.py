"""Runs of operations that are applied several times with the same weights."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from torch import fx

from perceiver_exporters.cutting.program import Program, is_size


@dataclass(frozen=True)
class Repeat:
    """Steps [start, start + length), applied `count` times in a row.

    `carries` has for each value that a repetition passes to the next its step, counted from the start, and the node
    that the first repetition reads in its place.
    """

    start: int
    length: int
    count: int
    carries: Mapping[int, fx.Node]

    @property
    def end(self) -> int:
        """The step after the last repetition."""
        return self.start + self.length * self.count


def find_repeats(program: Program) -> list[Repeat]:
    """All runs, in order and without overlap; shorter periods go first."""
    search = _Search(program)
    found: list[Repeat] = []
    for period in search.periods():
        for repeat in search.runs(period):
            if all(repeat.end <= other.start or other.end <= repeat.start for other in found):
                found.append(repeat)
    return sorted(found, key=lambda repeat: repeat.start)


class _Search:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.steps = program.steps
        self.index = {node: i for i, node in enumerate(self.steps)}
        self.keys: dict[fx.Node, Hashable] = {}
        self.weights: dict[int, int] = {id(t): n for n, t in enumerate(program.tensors.values())}
        self.tokens = [self._token(node) for node in self.steps]
        self.scopes = [program.scope(node).split(".") for node in self.steps]
        self.last_use = self._last_uses()

    def periods(self) -> list[int]:
        """Distances between two uses of one weight, the shortest first."""
        places = defaultdict(list)
        for i, node in enumerate(self.steps):
            for weight in self._weights_of(node):
                places[weight].append(i)
        return sorted({b - a for each in places.values() for a, b in itertools.pairwise(each) if b > a})

    def runs(self, period: int) -> Iterator[Repeat]:
        """Runs with this period."""
        start = 0
        while start + period < len(self.tokens):
            end = start
            while end + period < len(self.tokens) and self.tokens[end] == self.tokens[end + period]:
                end += 1
            if end - start >= period and (best := self._aligned(start, end + period, period)) is not None:
                yield best
                start = best.end
            else:
                start = end + 1

    def _aligned(self, start: int, end: int, period: int) -> Repeat | None:
        """The longest run within [start, end), with the fewest values carried."""
        for count in range((end - start) // period, 1, -1):
            fitting = [
                repeat
                for first in range(start, end - count * period + 1)
                if self._at_edge(first, period) and (repeat := self._run(first, period, count)) is not None
            ]
            if fitting:
                return min(
                    fitting, key=lambda repeat: (len(repeat.carries), len(self._shared(repeat.start)), repeat.start)
                )
        return None

    def _at_edge(self, start: int, period: int) -> bool:
        """Whether a repetition starts between two modules, not inside one that it has other modules beside."""
        shared = self._shared(start)
        return all(self.scopes[i][: len(shared)] == shared for i in range(start, start + period))

    def _shared(self, place: int) -> list[str]:
        """The modules that a place between two steps is inside of."""
        before, after = self.scopes[place - 1] if place else [], self.scopes[place]
        return [a for a, b in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))]

    def _run(self, start: int, period: int, count: int) -> Repeat | None:
        """The run, if each repetition reads the one before as the first reads what comes before it."""
        carries: dict[int, fx.Node] = {}
        if not any(self._weights_of(self.steps[i]) for i in range(start, start + period)):
            return None
        for offset in range(period):
            reads = [self._reads(start + k * period + offset) for k in range(count)]
            if len({len(each) for each in reads}) > 1:
                return None
            for first, *later in zip(*reads, strict=True):
                if not self._consistent(start, period, first, later, carries):
                    return None
        for i in range(start, start + (count - 1) * period):
            if self.last_use[i] >= start + ((i - start) // period + 2) * period or self.last_use[i] < 0:
                return None
        same = all(self._spec(self.steps[start + offset]) == self._spec(node) for offset, node in carries.items())
        return Repeat(start, period, count, carries) if same and carries else None

    def _consistent(
        self, start: int, period: int, first: fx.Node, later: list[fx.Node], carries: dict[int, fx.Node]
    ) -> bool:
        at = self.index.get(first, -1)
        places = [self.index.get(node, -1) - (k + 1) * period - start for k, node in enumerate(later)]
        if at >= start:  # within the repetition
            return all(place == at - start for place in places)
        if all(node is first for node in later):  # the same value for all
            return True
        carried = {place + period for place in places}
        if len(carried) != 1 or not 0 <= (offset := carried.pop()) < period:
            return False
        return carries.setdefault(offset, first) is first

    def _reads(self, i: int) -> list[fx.Node]:
        return [node for node in self.steps[i].all_input_nodes if node in self.program.dependent]

    def _weights_of(self, node: fx.Node) -> set[int]:
        found, waiting = set(), [n for n in node.all_input_nodes if n not in self.program.dependent]
        while waiting:
            each = waiting.pop()
            if each.op == "get_attr":
                found.add(self.weights[id(self.program.tensors[str(each.target)])])
            waiting.extend(n for n in each.all_input_nodes if n not in self.program.dependent)
        return found

    def _last_uses(self) -> list[int]:
        """Last step that reads each step's value; -1 for a result of the model, which is read after all."""
        last = [max((self.index.get(user, -1) for user in node.users), default=-1) for node in self.steps]
        for node in self.program.results:
            if node in self.index:
                last[self.index[node]] = len(self.steps) + len(self.steps)
        return last

    def _spec(self, node: fx.Node) -> object:
        return self.program.spec(node, "")

    def _token(self, node: fx.Node) -> Hashable:
        """An operation with its constants and weights, without the values that it reads."""
        return node.target, self._key(node.args), self._key(tuple(sorted(node.kwargs.items())))

    def _key(self, argument: object) -> Hashable:
        if isinstance(argument, fx.Node):
            if argument in self.program.dependent:
                return "value"
            if argument not in self.keys:
                self.keys[argument] = self._constant(argument)
            return self.keys[argument]
        if isinstance(argument, tuple | list):
            return tuple(self._key(each) for each in argument)
        if isinstance(argument, slice):
            return tuple(self._key(each) for each in (argument.start, argument.stop, argument.step))
        return type(argument), argument if isinstance(argument, Hashable) else repr(argument)  # 1 == 1.0 == True

    def _constant(self, node: fx.Node) -> Hashable:
        if is_size(node):
            return "size", str(node.meta["val"])
        if node.op == "get_attr":
            return "weight", self.weights[id(self.program.tensors[str(node.target)])]
        return self._token(node)  # not its hash: those of -1 and -2 are equal
