"""How components are wired into a model: ordered steps over named values.

A value is a tensor that is passed between steps; session inputs and outputs are values. A step reads values into the
inputs of a component's graph and writes the graph's outputs to values. Three features of a Perceiver belong to a step,
so that backends need no knowledge of models:

- `repeat` runs the component several times (shared blocks: 8 x 6 layers are 6 layers run 8 times);
- `chunk` runs it on slices along one symbolic dimension (inputs of the encoder, queries of the decoder), so that the
  score matrix is never complete in memory;
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
    """Run a step on slices of `size` entries along the symbolic `dimension`; the last slice may be smaller.

    Inputs with the dimension are sliced along it; all others are passed whole to each call. Outputs with the dimension
    are concatenated; of all others the value of the last chunk is kept (see `Step.carry`). With `only_first` the step
    runs on the first chunk alone, because its outputs do not depend on the others.
    """

    dimension: str
    size: int
    only_first: bool = False


@dataclass(frozen=True)
class Step:
    """One component in the pipeline, with its wiring.

    Attributes:
        component: Name of the component.
        inputs: Value that each graph input reads.
        outputs: Value that each graph output writes.
        stage: `encode` or `decode`; all encode steps come first.
        repeat: Number of calls; more than one needs a carry and no chunk.
        chunk: How the step is run in slices; None runs it whole.
        carry: Graph input that each of these graph outputs feeds in the next repetition or chunk.
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
    """Autoregressive generation: how a runtime repeats the decode step that runs `component`.

    Attributes:
        name: Name of the generation.
        component: Component of its step.
        token: Input value (B,) with the previous id, int64; its default is `start`.
        scores: Output value (B, vocabulary) with log-probabilities of the next id.
        start: Id before the first one.
        stop: Id that ends a sequence.
        length: Largest number of ids.

    The step's `carry` is the state that is passed from one position to the next.
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
    """Ordered steps from the inputs of a model to its outputs.

    Attributes:
        inputs: Input values of a session.
        outputs: Output values of a session.
        steps: Steps in order.
        defaults: Fill value of each input that may be omitted, such as an attention mask of ones.
        generations: Sequences that the decode steps can generate.
        aliases: Value of each output that is named differently from its value, so that an output may be named like an
            input.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    defaults: Mapping[str, float] = field(default_factory=dict)
    generations: tuple[Generation, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> dict[str, str]:
        """Value behind each name that a session returns: outputs, and results of the encode stage."""
        outputs = {spec.name: self.aliases.get(spec.name, spec.name) for spec in self.outputs}
        return {name: name for name in self.encoded} | outputs

    @property
    def encoded(self) -> tuple[str, ...]:
        """Values that decode steps read from encode steps: the results of `Session.encode`."""
        made = {v for s in self.steps if s.stage == "encode" for v in s.outputs.values()}
        read = {v for s in self.steps if s.stage == "decode" for v in s.inputs.values()}
        return tuple(sorted(made & read))

    def generation(self, name: str | None) -> Generation:
        """The generation of that name, or the only one. Raises UsageError."""
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
        """The steps that the named values depend on, in order."""
        wanted, kept = set(values), []
        for step in reversed(self.steps):
            if wanted & set(step.outputs.values()):
                wanted |= set(step.inputs.values())
                kept.append(step)
        return tuple(reversed(kept))
