"""Error growth over the layers of a component that runs once: the same three curves, measured inside its graph.

A layer is a child of the longest sequence of equal modules in a component; its result in the graph is that of the last
node named after it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import onnx
import torch
from torch import nn

from perceiver_exporters.bundle.stored_graphs import stored_proto
from perceiver_exporters.component import Component, Cut
from perceiver_exporters.diagnose.bisection.values import OpenGraph, part
from perceiver_exporters.diagnose.error_growth import (
    Curves,
    Deployed,
    ErrorGrowth,
    as_growth,
    as_specified,
    keep_largest,
    runs_of,
)
from perceiver_exporters.reference import Reference
from perceiver_runtime.execution.session import Session
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.tensors import Array

LEAST_LAYERS = 3


def measure_layers(session: Session, cut: Cut, samples: Iterable[Mapping[str, Array]]) -> tuple[ErrorGrowth, ...]:
    """Error growth over the layers of every component that the pipeline runs once and unchunked."""
    once = {step.component for step in cut.pipeline.steps if step.repeat == 1 and step.chunk is None}
    trunks = [t for c in cut.components if c.name in once and (t := _trunk(session, c)) is not None]
    exact, deployed = Reference(cut, torch.float64), Deployed(session, cut)
    names = [trunk.component.name for trunk in trunks]
    found: dict[tuple[str, str], Curves] = {}
    for feeds in samples if trunks else ():
        theirs, ours = (runs_of(reference, feeds, names) for reference in (exact, deployed))
        for trunk in trunks:
            name = trunk.component.name
            curves = trunk.curves(theirs[name][0].inputs, ours[name][0].inputs)
            keep_largest(found.setdefault((name, trunk.values[-1]), {}), curves)
    return as_growth(found, "layers")


class _Trunk:
    """The layers of one component, in PyTorch and in the bundle's graph."""

    def __init__(self, component: Component, paths: Sequence[str], graph: onnx.ModelProto, values: list[str]) -> None:
        self.component = component
        self.values = values
        self._graph = graph
        self._module = copy.deepcopy(component.module).to(torch.float64).eval()
        self._paths = paths

    def curves(self, exact: Mapping[str, Array], deployed: Mapping[str, Array]) -> Curves:
        """From what the reference, and the deployed pipeline, give the component."""
        given = as_specified(self.component.inputs, exact)
        right, grown = self._layers(exact), self._layers(deployed)
        got = OpenGraph(self._graph).run(as_specified(self.component.inputs, deployed), self.values)
        start = max(
            (relative_l2(exact[n], deployed[n]) for n in exact if exact[n].shape == right[0].shape), default=0.0
        )
        return {
            "chained": [start, *(relative_l2(a, got[n]) for a, n in zip(right, self.values, strict=True))],
            "teacher_forced": [self._alone(i, given, self._layers(given)) for i in range(len(right))],
            "amplified": [start, *(relative_l2(a, b) for a, b in zip(right, grown, strict=True))],
        }

    def _alone(self, index: int, inputs: Mapping[str, Array], right: list[Array]) -> float:
        """What one layer of the graph adds to the exact result of the layer before."""
        given = dict(inputs)
        if index:
            given[self.values[index - 1]] = right[index - 1].astype("float32")
        value = self.values[index]
        graph = OpenGraph(part(self._graph, [value], given))
        read = {spec.name for spec in graph.model.graph.input}
        made = graph.run({name: array for name, array in given.items() if name in read}, [value])
        return relative_l2(right[index], made[value])

    def _layers(self, inputs: Mapping[str, Array]) -> list[Array]:
        """What each layer returns in FP64."""
        made: list[Array] = []
        hooks = [
            self._module.get_submodule(path).register_forward_hook(lambda *call: made.append(call[-1].numpy()))
            for path in self._paths
        ]
        tensors = [torch.tensor(inputs[spec.name]) for spec in self.component.inputs]
        with torch.no_grad():
            self._module(*(t.to(torch.float64) if t.is_floating_point() else t for t in tensors))
        for hook in hooks:
            hook.remove()
        return made


def _trunk(session: Session, component: Component) -> _Trunk | None:
    paths = _layers_of(component.module)
    if not paths:
        return None
    graph = stored_proto(session.bundle, session.manifest.component(component.name).onnx)
    values = [_result(graph, path) for path in paths]
    return None if None in values else _Trunk(component, paths, graph, [v for v in values if v is not None])


def _layers_of(module: nn.Module) -> list[str]:
    """Paths of the longest sequence of equal modules with children; empty if it is short."""
    longest: list[str] = []
    for path, container in module.named_modules():
        children = list(container.named_children())
        kinds = {type(child) for _, child in children}
        composed = all(list(child.children()) for _, child in children)
        if isinstance(container, nn.Sequential | nn.ModuleList) and len(kinds) == 1 and composed:
            found = [f"{path}.{name}" if path else name for name, _ in children]
            longest = max(longest, found, key=len)
    return longest if len(longest) >= LEAST_LAYERS else []


def _result(graph: onnx.ModelProto, path: str) -> str | None:
    """The output of a module's last node."""
    own = [node for node in graph.graph.node if node.name.rpartition("/")[0] == path]
    return str(own[-1].output[0]) if own else None
