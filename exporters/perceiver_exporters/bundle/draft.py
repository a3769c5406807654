"""The manifest of a bundle as far as it is known from the model and its graphs."""

from __future__ import annotations

from collections.abc import Mapping

from perceiver_exporters.bundle.sealing import tool_versions
from perceiver_exporters.component import Blueprint
from perceiver_exporters.ir.flops import flops, parameters, recurrent_flops
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.value_ranges import with_index_ranges
from perceiver_exporters.targets.target import Target
from perceiver_runtime.manifest import SCHEMA_VERSION, ComponentEntry, Manifest


def draft_manifest(blueprint: Blueprint, graphs: Mapping[str, SizedGraph], precision: str, target: Target) -> Manifest:
    """The manifest without tolerances, golden samples and files, from the FP32 graphs of all components."""
    cut = blueprint.cut
    components = tuple(
        ComponentEntry(
            name=component.name,
            onnx=f"onnx/{component.name}.onnx",
            inputs=component.inputs,
            outputs=component.outputs,
            precision=precision,
            parameters=parameters(graphs[component.name].model),
            flops=flops(graphs[component.name]),
            recurrent_flops=recurrent_flops(graphs[component.name]),
        )
        for component in cut.components
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        source=blueprint.source,
        precision=precision,
        target=target.name,
        opset=target.opset,
        components=components,
        pipeline=cut.pipeline,
        profiles=(cut.profile,),
        tolerances=(),
        golden=(),
        tools=tool_versions(),
        files={},
        labels=blueprint.labels,
        golden_origin=blueprint.golden_origin,
        processing=blueprint.processing,
        data=blueprint.data,
    )
    return with_index_ranges(manifest, {name: graph.model for name, graph in graphs.items()}, blueprint.golden)
