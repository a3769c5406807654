from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

from perceiver_exporters.component import Blueprint
from perceiver_exporters.ir import sized as sized_graph
from perceiver_exporters.ir.sized import Shapes, SizedGraph, static_shapes
from perceiver_exporters.rules import stored_outcomes

from .conftest import Bundle


@pytest.fixture
def inferred(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the shapes of each component are inferred."""
    calls: Counter[str] = Counter()
    infer = sized_graph.infer_shapes

    def count(model: ir.Model, inputs: Shapes) -> ir.Model:
        calls[str(model.graph.name)] += 1
        return infer(model, inputs)

    monkeypatch.setattr(sized_graph, "infer_shapes", count)
    return calls


@pytest.mark.parametrize(("precision", "others"), [("fp32", 0), ("fp16", 1), ("int8", 0)])
def test_an_export_infers_shapes_once_per_version_of_a_graph(
    precision: str, others: int, bundle: Bundle, inferred: Counter[str]
) -> None:
    """Versions: as traced, after each rule that applied, and in the precision; FP16 is audited at the largest sizes."""
    path, manifest = bundle(precision)
    applied = {c.name: sum(o.applied for o in stored_outcomes(Path(path, c.onnx))) for c in manifest.components}
    assert inferred == {name: 1 + count + 1 + others for name, count in applied.items()}


def test_shapes_are_kept_until_the_graph_changes(
    blueprint: Blueprint, graphs: dict[str, ir.Model], inferred: Counter[str]
) -> None:
    component = blueprint.cut.component("encoder")
    graph = SizedGraph(graphs["encoder"], component.inputs, blueprint.cut.profile)
    assert graph.opt is graph.opt
    assert graph.largest is graph.largest
    assert inferred == {"encoder": 2}
    output = str(graph.graph.outputs[0].name)
    sizes = blueprint.cut.profile.dimensions["batch"]
    assert static_shapes(graph.opt)[output][0] == sizes.opt
    assert static_shapes(graph.largest)[output][0] == sizes.max
    first = graph.opt
    graph.invalidate()
    assert graph.opt is not first
