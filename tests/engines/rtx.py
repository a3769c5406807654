"""REAL builds with TensorRT-RTX of the small models' components; shared by tests and the benchmark."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
from small_models import SmallModel, small_model

from perceiver_deploy.zoo import zoo
from perceiver_exporters.precision import PRECISIONS, Feeds, Request
from perceiver_exporters.precision.audit import audit
from perceiver_exporters.reference import Reference
from perceiver_exporters.storage import save_graphs
from perceiver_exporters.targets import TARGETS
from perceiver_exporters.trace import trace
from perceiver_runtime.tensorrt.build import BuildRequest, BuiltEngine, build_engine

NEWEST = ("12.0",)  # one GPU builds faster than six


@functools.cache
def traced(family: str) -> tuple[SmallModel, dict[str, bytes]]:
    """The FP32 graphs of the family's small model, traced once."""
    model = small_model(family)
    graphs = {c.name: trace(c, model.cut.profile, TARGETS["rtx"].opset) for c in model.cut.components}
    return model, {name: ir.to_proto(graph).SerializeToString() for name, graph in graphs.items()}


def rewritten(family: str, precision: str) -> Iterator[tuple[str, ir.Model]]:
    model, graphs = traced(family)

    def calibration(component: str) -> Iterator[Feeds]:
        return (a.inputs for a in Reference(model.cut).applications(model.feeds) if a.component == component)

    for name, content in graphs.items():
        stream = functools.partial(calibration, name)
        graph, chosen = _load(content), PRECISIONS[precision]
        inputs, form = model.cut.component(name).inputs, chosen.format
        findings = audit(graph, inputs, model.cut.profile, form) if form is not None else ()
        yield name, chosen.rewrite(graph, Request(name, "tensorrt", stream, findings))


def _load(content: bytes) -> ir.Model:

    return ir.from_proto(onnx.load_from_string(content))


def build(
    trt: ModuleType, family: str, name: str, path: Path, capabilities: tuple[str, ...] = NEWEST, **options: object
) -> BuiltEngine:
    model, _ = traced(family)
    component = model.cut.component(name)
    request = BuildRequest(name, path, component.inputs, (model.cut.profile,), "0" * 64, 1 << 28, capabilities)
    return build_engine(trt, request, **options)  # type: ignore[arg-type]


def released(trt: ModuleType, name: str, precision: str, folder: Path) -> Iterator[BuiltEngine]:
    """The components of a released size, with random weights, for all GPUs of the target.

    INT8 is calibrated on one random sample: enough to build, not to be accurate.
    """
    target, entry = TARGETS["rtx"], zoo()[name]
    assert target.engines is not None
    cut = entry.family.cut(entry.family.build(entry.config).eval())
    feeds = entry.family.sample(entry.config, 1, np.random.default_rng(0)) if precision == "int8" else {}
    graphs = {c.name: trace(c, cut.profile, target.opset) for c in cut.components}

    def calibration(component: str) -> Iterator[Feeds]:
        return (a.inputs for a in Reference(cut).applications(feeds) if a.component == component)

    def request(name: str) -> Request:
        return Request(name, target.quantization, functools.partial(calibration, name))

    graphs = {name: PRECISIONS[precision].rewrite(graph, request(name)) for name, graph in graphs.items()}
    paths = save_graphs(graphs, folder)
    for component in cut.components:
        wanted = BuildRequest(
            component=component.name,
            onnx=folder / paths[component.name],
            inputs=component.inputs,
            profiles=(cut.profile,),
            graph_sha256="0" * 64,
            workspace=64 << 30,
            compute_capabilities=target.engines.capabilities(precision),
        )
        yield build_engine(trt, wanted)
