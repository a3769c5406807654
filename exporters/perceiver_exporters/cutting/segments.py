"""Segments: which steps of a program become which component."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from perceiver_exporters.cutting.program import Program
from perceiver_exporters.cutting.repeats import Repeat
from perceiver_exporters.cutting.sites import Kind, Site
from perceiver_runtime.errors import UsageError
from perceiver_runtime.suggest import did_you_mean

ROLES = {Kind.TOKENS: "backbone", Kind.READ: "encoder", Kind.LATENTS: "processor", Kind.ASK: "decoder"}


@dataclass(frozen=True)
class Segment:
    """Steps [start, end) of one component; `repeat` if it is applied several times."""

    name: str
    start: int
    end: int
    repeat: Repeat | None = None


@dataclass(frozen=True)
class Group:
    """Consecutive attention that stays in one component: its first and last step, and what it is for."""

    first: int
    last: int
    name: str


def groups_of(sites: Sequence[Site]) -> list[Group]:
    """Attention in order, grouped by kind; layers that alternate between kinds are one group."""
    before = [s for s in sites if s.kind is not Kind.ASK]
    reads = [i for i, s in enumerate(before) if s.kind is Kind.READ]
    made: list[Group] = []
    if reads:
        head, rest = before[: reads[0]], before[reads[0] :]
        run = next((i for i, s in enumerate(rest) if s.kind is not Kind.READ), len(rest))
        alternating = any(s.kind is Kind.READ for s in rest[run:])
        parts = [rest] if alternating else [rest[:run], rest[run:]]
        of_inputs = bool(head) and head[-1].queries == rest[0].keys
        parts = [head, *parts] if of_inputs else [head + parts[0], *parts[1:]]
    else:
        parts = [before]
    names = [ROLES[part[0].kind] if part else "" for part in parts]
    for part, name in zip(parts, names, strict=True):
        if part:
            made.append(Group(part[0].step, part[-1].step, name))
    asks = [s for s in sites if s.kind is Kind.ASK]
    if asks:
        later = [s for s in sites if s.step >= asks[0].step]
        made = [Group(g.first, min(g.last, asks[0].step - 1), g.name) for g in made if g.first < asks[0].step]
        made.append(Group(later[0].step, later[-1].step, ROLES[Kind.ASK]))
    return made


def segment(program: Program, repeats: Sequence[Repeat], groups: Sequence[Group]) -> list[Segment]:
    """Segments between and around repeats, cut where groups meet."""
    edges = Edges(program)
    made: list[Segment] = []
    start = 0
    for repeat in (*repeats, None):
        end = len(program.steps) if repeat is None else repeat.start
        if end > start:
            made.extend(_span(edges, start, end, groups, after=bool(made)))
        if repeat is not None:
            made.append(Segment("processor_block", repeat.start, repeat.end, repeat))
            start = repeat.end
    return _named(made)


def _span(edges: Edges, start: int, end: int, groups: Sequence[Group], *, after: bool) -> list[Segment]:
    inside = [g for g in groups if start <= g.first and g.last < end]
    cuts = [start]
    names = []
    for first, second in itertools.pairwise(inside):
        if (place := edges.narrowest(first.last + 1, second.first)) is not None:
            cuts.append(place)
            names.append(first.name)
    names.append(inside[-1].name if inside else ("decoder" if after else "encoder"))
    return [Segment(name, a, b) for name, a, b in zip(names, cuts, [*cuts[1:], end], strict=True)]


def _named(segments: list[Segment]) -> list[Segment]:
    seen: dict[str, int] = {}
    made = []
    for each in segments:
        seen[each.name] = seen.get(each.name, 0) + 1
        number = seen[each.name]
        name = f"{each.name}_{number}" if number > 1 else each.name
        made.append(Segment(name, each.start, each.end, each.repeat))
    return made


def named_segments(program: Program, repeats: Sequence[Repeat], patterns: Sequence[str]) -> list[Segment]:
    """Segments of the submodules that a user names, in the order in which they run.

    Args:
        program: The program.
        repeats: Runs with the same weights; one within a named submodule stays a component of its own.
        patterns: Paths of submodules; `layers.*` is all entries of a list as one component.

    Raises:
        UsageError: A pattern names nothing that runs, or two of them run in turns.
    """
    edges = Edges(program)
    scopes = [program.scope(node) for node in program.steps]
    spans = sorted((*_extent(scopes, pattern), pattern) for pattern in patterns)
    for (_, end, one), (start, _, other) in itertools.pairwise(spans):
        if start < end:
            raise UsageError(f"cut (--cut): {one} and {other} run in turns; name one module that holds both")
    cuts = [0]
    for (_, end, _), (start, _, _) in itertools.pairwise(spans):
        if (place := edges.narrowest(end, start)) is None:
            raise UsageError("cut (--cut): values between the modules have sizes that are not those of an input")
        cuts.append(place)
    made = []
    for (_, _, pattern), start, end in zip(spans, cuts, [*cuts[1:], len(program.steps)], strict=True):
        name = pattern.removesuffix(".*").rpartition(".")[2]
        inner = next((r for r in repeats if start <= r.start and r.end <= end), None)
        if inner is None:
            made.append(Segment(name, start, end))
            continue
        around = [Segment(f"{name}_start", start, inner.start), Segment(name, inner.start, inner.end, inner)]
        made.extend(s for s in (*around, Segment(f"{name}_end", inner.end, end)) if s.end > s.start)
    return _named(made)


def _extent(scopes: Sequence[str], pattern: str) -> tuple[int, int]:
    """First step of the modules that a pattern names, and the step after the last."""
    path = pattern.removesuffix(".*")
    inside = [i for i, scope in enumerate(scopes) if _within(scope, path)]
    if not inside:
        known = sorted({".".join(s.split(".")[: path.count(".") + 1]) for s in scopes if s})
        raise UsageError(
            f"cut (--cut): expected submodules that run, got {pattern!r:.80}{did_you_mean(path, known)}; "
            f"at this depth: {', '.join(known)[:400]}"
        )
    return inside[0], inside[-1] + 1


def _within(scope: str, pattern: str) -> bool:
    parts = pattern.split(".")
    return fnmatch.fnmatchcase(".".join(scope.split(".")[: len(parts)]), pattern)


class Edges:
    """Places between two steps, by the values that cross them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.index = {node: i for i, node in enumerate(program.steps)}
        self.results = frozenset(program.results)
        self.last = [max((self._place(user) for user in node.users), default=-1) for node in program.steps]

    def _place(self, user: fx.Node) -> int:
        return self.index.get(user, -1)

    def crossing(self, place: int) -> list[fx.Node]:
        """Values that are computed before a place and read after it."""
        return [node for node, last in zip(self.program.steps[:place], self.last[:place], strict=True) if last >= place]

    def narrowest(self, first: int, last: int) -> int | None:
        """The place in [first, last] that the fewest values cross; of several, where the outermost module ends."""
        places = [(cost, place) for place in range(first, last + 1) if (cost := self._cost(place)) is not None]
        return min(places)[1] if places else None

    def _cost(self, place: int) -> tuple[int, int, int] | None:
        values = self.crossing(place)
        if any(self.program.spec(value, "") is None for value in values):
            return None
        steps = self.program.steps
        before, after = (self.program.scope(steps[i]).split(".") for i in (place - 1, place))
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
        )
        size = sum(_typical(value) for value in values)
        return len(values), shared, size


def _typical(node: fx.Node) -> int:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    total = 1
    for size in value.shape:
        total *= size if isinstance(size, int) else 2
    return total
