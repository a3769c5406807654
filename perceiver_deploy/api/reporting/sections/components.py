"""The components of a model as a diagram, with shapes, repetitions and shared weights."""

from __future__ import annotations

from collections.abc import Iterator

from perceiver_deploy.api.reporting.charts.diagram import Edge, Node, diagram
from perceiver_deploy.api.reporting.charts.picture import picture
from perceiver_deploy.api.reporting.data import ModelReport
from perceiver_deploy.api.reporting.sections.section import Section
from perceiver_deploy.api.reporting.tables import TIMES, table
from perceiver_runtime.cli.report import amount
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import TensorSpec

COLUMNS = ("step", "component:<", "stage:<", "calls:<", "parameters", "MFLOP per call", "reads:<", "writes:<")


def components(model: ModelReport, key: str) -> Section:
    """The steps in order."""
    entries = {entry.name: entry for entry in model.bundles[0].components}
    steps = model.pipeline.steps
    rows = [
        (
            str(number),
            step.component,
            step.stage,
            _calls(step) or "1",
            f"{entries[step.component].parameters:,}",
            f"{entries[step.component].flops / 1e6:,.1f}",
            ", ".join(_bound(step.inputs, entries[step.component].inputs)),
            ", ".join(_bound(step.outputs, entries[step.component].outputs)),
        )
        for number, step in enumerate(steps, 1)
    ]
    drawn = picture(
        f"{key}-components",
        f"Components of {model.source.name}",
        f"{len(steps)} steps from {', '.join(s.name for s in model.pipeline.inputs)} to "
        f"{', '.join(s.name for s in model.pipeline.outputs)}: "
        + ", then ".join(f"{step.component}{_spoken(step)}" for step in steps),
        lambda width: diagram(width, _nodes(model, entries), _edges(model, entries)),
        table(COLUMNS, rows),
    )
    note = "One ONNX graph per component. A loop is a block that runs several times with the same weights."
    return Section("components", "Components", note, (drawn,), model.commands["card"])


def _nodes(model: ModelReport, entries: dict[str, ComponentEntry]) -> list[Node]:
    pipeline = model.pipeline
    uses = [step.component for step in pipeline.steps]
    nodes = [Node("inputs", ", ".join(s.name for s in pipeline.inputs), "input")]
    for step in pipeline.steps:
        entry = entries[step.component]
        shared = "shared weights" if step.repeat > 1 or uses.count(step.component) > 1 else ""
        detail = f"{amount(entry.parameters)} parameters · {amount(entry.flops)}FLOP per call"
        badge = " ".join(filter(None, (_calls(step), shared)))
        nodes.append(Node(step.component, detail, step.stage, badge, repeats=step.repeat > 1))
    return [*nodes, Node("outputs", ", ".join(s.name for s in pipeline.outputs), "output")]


def _edges(model: ModelReport, entries: dict[str, ComponentEntry]) -> list[Edge]:
    """Each value from the box that made it last to those that read it: box 0 is the inputs, the last the outputs."""
    pipeline = model.pipeline
    made = {spec.name: (0, spec) for spec in pipeline.inputs}
    edges: list[Edge] = []
    for number, step in enumerate(pipeline.steps, 1):
        read = [(value, *made[value]) for value in dict.fromkeys(step.inputs.values()) if value in made]
        edges += [Edge(start, number, _label(value, spec)) for value, start, spec in read]
        specs = {spec.name: spec for spec in entries[step.component].outputs}
        made |= {value: (number, specs[graph]) for graph, value in step.outputs.items() if graph in specs}
    last = len(pipeline.steps) + 1
    for spec in pipeline.outputs:
        value = pipeline.aliases.get(spec.name, spec.name)
        if value in made:
            edges.append(Edge(made[value][0], last, _label(spec.name, spec)))
    return edges


def _label(value: str, spec: TensorSpec) -> str:
    return f"{value} ({', '.join(map(str, spec.shape))})"


def _calls(step: Step) -> str:
    if step.chunk is not None and not step.chunk.only_first:
        return f"per {step.chunk.size} {step.chunk.dimension}"
    return f"{TIMES} {step.repeat}" if step.repeat > 1 else ""


def _spoken(step: Step) -> str:
    return f", {step.repeat} times with the same weights" if step.repeat > 1 else ""


def _bound(wiring: object, specs: tuple[TensorSpec, ...]) -> Iterator[str]:
    names = dict(wiring)  # type: ignore[call-overload]  # a mapping
    for spec in specs:
        if spec.name in names:
            yield _label(names[spec.name], spec)
