"""How components are wired into a model: ordered steps over named values.

A *value* is a tensor that travels between steps; it carries the name that a session's user sees. A step
reads values into a component's graph inputs and writes graph outputs back as values. Three things that a
Perceiver needs are part of a step, so that no backend has to know about models:

- `repeat` runs the component several times (shared blocks: 8 x 6 layers are 6 layers run 8 times);
- `chunk` runs it piecewise along one symbolic dimension (keys of the encoder, queries of the decoder), so
  that the score matrix never exists whole;
- `carry` names the graph outputs that become graph inputs of the next repetition or chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from perceiver_runtime.errors import UsageError
from perceiver_runtime.tensors import TensorSpec

Stage = Literal["encode", "decode"]


@dataclass(frozen=True)
class Chunk:
    """Run a step piecewise: `size` entries of the symbolic `dimension` at a time, the last piece possibly smaller.

    Inputs having the dimension are sliced along it, all others are given whole to every piece. Outputs having
    the dimension are concatenated along it; of all others the last piece's value stands (see `Step.carry`).
    `only_first`: the step runs on the first piece alone, for what it makes does not depend on the others.
    """

    dimension: str
    size: int
    only_first: bool = False


@dataclass(frozen=True)
class Step:
    """One component in its place.

    `inputs` maps graph inputs to values, `outputs` graph outputs to values, `carry` graph outputs to the
    graph inputs that they feed on the next repetition or chunk.
    """

    component: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    stage: Stage
    repeat: int = 1
    chunk: Chunk | None = None
    carry: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """A sequence that is made id by id: how a runtime loops the decode step that runs `component`.

    That step reads the input value `token` (B,), the id before, which defaults to `start`, and makes the output
    value `scores` (B, vocabulary), log-probabilities of the id after it. Its `carry` is the state that goes from
    one position to the next. A sequence ends with the id `stop`, or after `length` ids.
    """

    name: str
    component: str
    token: str
    scores: str
    start: int
    stop: int
    length: int


@dataclass(frozen=True)
class Pipeline:
    """Ordered steps from a model's inputs to its outputs.

    `inputs` and `outputs` describe values; `defaults` gives the fill value of inputs that may be left out
    (an attention mask of ones, say). `generations` are the sequences that its decode steps can make. `aliases` name
    the value behind an output that bears another name: an output may thereby be called like an input.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    defaults: Mapping[str, float] = field(default_factory=dict)
    generations: tuple[Generation, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> dict[str, str]:
        """All that a session gives out, by name, with the value behind it: outputs, and what encoding hands on."""
        outputs = {spec.name: self.aliases.get(spec.name, spec.name) for spec in self.outputs}
        return {name: name for name in self.encoded} | outputs

    @property
    def encoded(self) -> tuple[str, ...]:
        """Values that the encode stage hands to the decode stage: what `Session.encode` returns."""
        made = {v for s in self.steps if s.stage == "encode" for v in s.outputs.values()}
        read = {v for s in self.steps if s.stage == "decode" for v in s.inputs.values()}
        return tuple(sorted(made & read))

    def generation(self, name: str | None) -> Generation:
        """The generation of that name, or the only one there is. Raises UsageError."""
        found = [g for g in self.generations if name in (None, g.name)]
        if len(found) != 1:
            known = ", ".join(g.name for g in self.generations) or "none"
            raise UsageError(f"generation {name!r}; this bundle can generate: {known}")
        return found[0]

    def step(self, component: str) -> Step:
        """The first step that runs the component. Raises KeyError."""
        for step in self.steps:
            if step.component == component:
                return step
        raise KeyError(component)

    def needed(self, values: frozenset[str]) -> tuple[Step, ...]:
        """The steps that the named values depend on, in order: heads that nobody asked for do not run."""
        wanted, kept = set(values), []
        for step in reversed(self.steps):
            if wanted & set(step.outputs.values()):
                wanted |= set(step.inputs.values())
                kept.append(step)
        return tuple(reversed(kept))
