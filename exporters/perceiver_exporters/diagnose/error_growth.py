"""Error growth: how the error of a deployed bundle develops over a repeated block, and what causes it.

Three curves over the repetitions, each the relative L2 distance to the FP64 reference:

- `chained`: the state of the deployed pipeline, with all errors so far;
- `teacher_forced`: the deployed block on the reference's input of that repetition, so its own error;
- `amplified`: the exact block on the output of the deployed encoder, so the encoder's error alone.

Where `amplified` follows `chained`, the encoder causes the final error; where it stays below, the block does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from perceiver_exporters.component import Component, Cut
from perceiver_exporters.reference import Reference, Tensors
from perceiver_runtime.execution.session import Session
from perceiver_runtime.golden import ComponentCall
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.tensors import Array, TensorSpec

Curves = dict[str, list[float]]


@dataclass(frozen=True)
class ErrorGrowth:
    """Curves of one carried value of a repeated step: the maximum over the samples at each repetition.

    `over` is the unit of the horizontal axis: `runs` of the component, or `layers` within it. `chained` and `amplified`
    start before the first of them and have one point more; `teacher_forced` has one point for each.
    """

    component: str
    value: str
    over: str
    chained: tuple[float, ...]
    teacher_forced: tuple[float, ...]
    amplified: tuple[float, ...]

    @property
    def encoder_share(self) -> float:
        """The exact block's amplification of the encoder's error, as a share of the final error."""
        return self.amplified[-1] / self.chained[-1] if self.chained[-1] else 0.0


def measure_growth(session: Session, cut: Cut, samples: Iterable[Mapping[str, Array]]) -> tuple[ErrorGrowth, ...]:
    """Error growth of every carried value of every repeated step; empty for a pipeline without repetition."""
    exact, deployed = Reference(cut, torch.float64), Deployed(session, cut)
    steps = {step.component: step for step in cut.pipeline.steps if step.repeat > 1}
    found: dict[tuple[str, str], Curves] = {}
    for feeds in samples if steps else ():
        theirs, ours = (runs_of(reference, feeds, steps) for reference in (exact, deployed))
        for name, step in steps.items():
            for output, carried in step.carry.items():
                curves = _curves(exact, session, (output, carried), theirs[name], ours[name])
                keep_largest(found.setdefault((name, step.inputs[carried]), {}), curves)
    return as_growth(found, "runs")


def as_growth(found: Mapping[tuple[str, str], Curves], over: str) -> tuple[ErrorGrowth, ...]:
    """Curves by (component, value), frozen."""
    return tuple(
        ErrorGrowth(component, value, over, **{name: tuple(points) for name, points in curves.items()})
        for (component, value), curves in found.items()
    )


class Deployed(Reference):
    """The pipeline as the reference runs it, with the bundle's graphs instead of the modules."""

    def __init__(self, session: Session, cut: Cut) -> None:
        super().__init__(cut)
        self._session = session

    def _apply(self, component: Component, inputs: Tensors) -> Tensors:
        arrays = {spec.name: inputs[spec.name].numpy() for spec in component.inputs}
        made = self._session.run_component(component.name, as_specified(component.inputs, arrays))
        return {name: torch.from_numpy(array) for name, array in made.items()}


def runs_of(reference: Reference, feeds: Mapping[str, Array], names: Iterable[str]) -> dict[str, list[ComponentCall]]:
    """Calls of the named components, in order."""
    runs: dict[str, list[ComponentCall]] = {name: [] for name in names}
    for call in reference.calls(feeds):
        if call.component in runs:
            runs[call.component].append(call)
    return runs


def _curves(
    exact: Reference, session: Session, carry: tuple[str, str], theirs: list[ComponentCall], ours: list[ComponentCall]
) -> Curves:
    """The three curves of one carried value, of one sample: the graph output `carry[0]` that feeds input `carry[1]`."""
    output, carried = carry
    start = relative_l2(theirs[0].inputs[carried], ours[0].inputs[carried])
    chained = [relative_l2(a.outputs[output], b.outputs[output]) for a, b in zip(theirs, ours, strict=True)]
    grown = zip(theirs, _amplified(exact, carry, ours[0], len(theirs)), strict=True)
    return {
        "chained": [start, *chained],
        "teacher_forced": [_own_error(exact, session, call, output) for call in theirs],
        "amplified": [start, *(relative_l2(a.outputs[output], array) for a, array in grown)],
    }


def _own_error(exact: Reference, session: Session, call: ComponentCall, output: str) -> float:
    """Error of the deployed component on the reference's input, rounded to the graph's input types."""
    name = call.component
    inputs = as_specified(exact.cut.component(name).inputs, call.inputs)
    return relative_l2(exact.apply(name, inputs)[output], session.run_component(name, inputs)[output])


def _amplified(exact: Reference, carry: tuple[str, str], first: ComponentCall, repeat: int) -> Iterator[Array]:
    """The exact component, repeated from the deployed pipeline's input of its first run."""
    output, carried = carry
    state = dict(first.inputs)
    for _ in range(repeat):
        made = exact.apply(first.component, state)
        state[carried] = made[output]
        yield made[output]


def as_specified(specs: Iterable[TensorSpec], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of a component's inputs in the types of its graph."""
    return {spec.name: arrays[spec.name].astype(spec.dtype) for spec in specs}


def keep_largest(kept: Curves, curves: Curves) -> None:
    """The larger of two samples' errors, point by point."""
    for name, points in curves.items():
        kept[name] = [max(pair) for pair in zip(kept.get(name, points), points, strict=True)]
