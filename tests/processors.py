"""Exports a small model at INT8 and prints what was decided, as JSON: run on several processors to be compared.

`python processors.py TRACES` takes the graphs in that directory, which `save_traces` has written.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from factories.families import SMALL, small_model

from perceiver_deploy.families import FAMILIES
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.precision.options import Budget, QuantizationOptions, Run
from perceiver_exporters.precision.placement.pareto import TABLE
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_exporters.reference import Reference
from perceiver_runtime.manifest import Source

FAMILY = "patch-classifier"
NEAR = 0.02
"""What counts as the reference's answer, for a score."""


def blueprint() -> Blueprint:
    """Golden and calibration feeds for the small model."""
    model, random = small_model(FAMILY), np.random.default_rng(1)
    for name, parameter in model.module.named_parameters():  # PyTorch's random numbers depend on the processor, too
        scale = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        values = random.standard_normal(parameter.shape, dtype=np.float32) * np.float32(scale)
        parameter.data = torch.from_numpy(values + np.float32(name.endswith("norm.weight")))
    feeds = [FAMILIES[FAMILY].sample(SMALL[FAMILY], 8, random) for _ in range(3)]
    return Blueprint(Source(FAMILY, FAMILY, "0" * 64, {}, pretrained=False), model.cut, feeds[:1], feeds[1:])  # type: ignore[arg-type]


def save_traces(directory: Path) -> Path:
    """Trace here, once: PyTorch takes minutes for it on an emulated processor."""
    cut = blueprint().cut
    for component in cut.components:
        ir.save(trace(component, cut.profile), directory / f"{component.name}.onnx")
    return directory


def decided(traces: Path) -> dict[str, Any]:
    """Kept layers, smoothed components, order and points of the search, and every stored scale."""
    made = blueprint()
    (feeds,) = made.golden
    expected = Reference(made.cut).run(feeds).values["logits"]

    def score(run: Run) -> Mapping[str, float]:
        return {"logits": float((np.abs(run(feeds, ("logits",))["logits"] - expected) < NEAR).mean())}

    options = QuantizationOptions(budget=Budget(0.5, score))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "b")
        manifest = export_bundle(
            made, path, "int8", tracer=lambda c, _p, _o: ir.load(traces / f"{c.name}.onnx"), quantization=options
        )
        table = json.loads((path / TABLE).read_text())
        graphs = {c.name: ir.load(path / c.onnx).graph for c in manifest.components}
        return {
            "layers": {e.component: [e.smoothed, *e.kept] for e in load_record(path / PATH)},
            "order": [[s["component"], s["layer"]] for s in table["order"]],
            "tried": {p["kept"]: p["lost"]["logits"] for p in table["points"]},
            "scales": {
                f"{name}/{key}": value.const_value.numpy().ravel().tolist()
                for name, graph in graphs.items()
                for key, value in graph.initializers.items()
                if key.endswith("_scale") and value.const_value is not None
            },
        }


if __name__ == "__main__":
    print(json.dumps(decided(Path(sys.argv[1]))))
