"""Names of nodes, as a viewer of graphs shows them: the module that a node comes from, and its operator."""

from __future__ import annotations

import re

import onnx_ir as ir
import pytest
from engines.rtx import small
from factories.families import SMALL

from perceiver_exporters.component import Component
from perceiver_exporters.ir.graph import products
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules import REWRITE_RULES, Context, rewrite
from perceiver_exporters.targets.target import TARGETS

EXPORTER = re.compile(r"(node_|val_|n)\d*_?\w*\d+$")
"""Names that the exporter gives: `node_linear_7`, `val_12`."""


def names(graph: ir.Graph) -> list[str]:
    return [str(node.name) for node in graph]


def check(graph: ir.Graph, component: Component) -> None:
    found, modules = names(graph), {name for name, _ in component.module.named_modules(remove_duplicate=False)}
    assert len(set(found)) == len(found)
    assert not [name for name in found if EXPORTER.match(name)]
    for node in graph:
        module, slash, _ = str(node.name).rpartition("/")
        assert not slash or module in modules, node.name
    assert not [node.name for node in products(graph) if "/" not in str(node.name) and component.module._modules]


@pytest.mark.parametrize("family", [pytest.param(f, marks=pytest.mark.xdist_group(f"rtx-{f}")) for f in SMALL])
def test_nodes_are_named_after_their_module_before_and_after_rewriting(family: str) -> None:
    subject = small(family)
    cut = subject.made.cut
    for component in cut.components:
        model = subject.traces(component, cut.profile, 20)
        check(model.graph, component)
        rewrite(SizedGraph(model, component.inputs, cut.profile), Context(TARGETS["cpu"], "fp32"), REWRITE_RULES)
        check(model.graph, component)
