"""REAL builds with TensorRT-RTX of what an export for it holds; shared by tests and the benchmark.

INT8 is calibrated on one random sample: enough to build, not to be accurate.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import onnx_ir as ir
from factories.families import small_model

from perceiver_deploy.sources.source import blueprint, resolve
from perceiver_exporters.bundle.storage import save_graphs
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import Exporter
from perceiver_exporters.ir.graph import has_constant_weight, products
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.manifest import Source
from perceiver_runtime.tensorrt.builder.attention import Form
from perceiver_runtime.tensorrt.builder.build import BuildRequest, BuiltEngine, build_engine

NEWEST = ("12.0",)  # one GPU builds faster than six
WORKSPACE = 64 << 30
"""Bytes: the largest batch of a released size takes more than the default. Nothing is allocated without a GPU."""
OPERANDS = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}


@dataclass(frozen=True)
class Subject:
    """A model to be exported, at any precision and traced once."""

    made: Blueprint
    traces: SharedTraces

    def graphs(self, precision: str) -> dict[str, ir.Model]:
        """By component: traced, rewritten by the rules, and in that precision, as `export` does it."""
        options = QuantizationOptions(smooth=precision != "int8")  # no golden samples
        exporter = Exporter(self.made, PRECISIONS[precision], TARGETS["rtx"], options, self.traces)
        return exporter.records().graphs

    def build(
        self,
        trt: ModuleType,
        name: str,
        path: Path,
        capabilities: tuple[str, ...] = NEWEST,
        attention: Form = "products",
    ) -> BuiltEngine:
        """One component's engine from its graph at `path`. Raises what `build_engine` raises."""
        cut = self.made.cut
        inputs = cut.component(name).inputs
        request = BuildRequest(
            name, path, inputs, (cut.profile,), "0" * 64, WORKSPACE, capabilities, attention=attention
        )
        return build_engine(trt, request)


@functools.cache
def small(family: str) -> Subject:
    """The family's small model."""
    model = small_model(family)
    source = Source(family, family, "", {}, pretrained=False)
    return Subject(Blueprint(source, model.cut, (), (model.feeds,)), SharedTraces())


@functools.lru_cache(maxsize=1)
def released(name: str) -> Subject:
    """A released size with random weights. Only the last is kept."""
    made = blueprint(resolve(name))
    return Subject(replace(made, golden=(), calibration=made.golden), SharedTraces())


def components(
    trt: ModuleType, subject: Subject, precision: str, folder: Path, capabilities: tuple[str, ...] = NEWEST
) -> Iterator[tuple[ir.Model, BuiltEngine]]:
    """Every component's graph and the engine built from it."""
    graphs = subject.graphs(precision)
    paths = save_graphs(graphs, folder)
    for name, path in paths.items():
        yield graphs[name], subject.build(trt, name, folder / path, capabilities)


def expected_products(graph: ir.Model, precision: str) -> Counter[str]:
    """Operand types that an engine's products must have.

    At INT8 all products with a trained weight are INT8 and all others FP32; at other precisions the graph's types are.
    """
    nodes = list(products(graph.graph))
    if precision == "int8":
        return +Counter(int8=(weighted := sum(map(has_constant_weight, nodes))), fp32=len(nodes) - weighted)
    return Counter(OPERANDS[node.inputs[0].dtype] for node in nodes if node.inputs[0] and node.inputs[0].dtype)
