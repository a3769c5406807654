"""From a blueprint to a bundle: trace, rewrite, prove, measure, write."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import onnx_ir as ir

from perceiver_exporters import count, tolerance
from perceiver_exporters.card import write_card
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.precision import Feeds, Precision, Request
from perceiver_exporters.proof import prove
from perceiver_exporters.reference import Reference
from perceiver_exporters.samples import make_samples, save_samples
from perceiver_exporters.storage import save_graphs
from perceiver_exporters.targets import TARGETS, Target, require
from perceiver_exporters.trace import trace
from perceiver_runtime.bundle import file_entry, write_manifest
from perceiver_runtime.errors import UsageError
from perceiver_runtime.manifest import SCHEMA_VERSION, ComponentEntry, FileEntry, Manifest
from perceiver_runtime.staging import check_destination, staged
from perceiver_runtime.tensors import Profile

Progress = Callable[[str], None]
Tracer = Callable[[Component, Profile, int], ir.Model]

TOOLS = ("perceiver-deploy", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


def export_bundle(
    blueprint: Blueprint,
    destination: Path,
    precision: str = "fp32",
    target: str = "cpu",
    *,
    overwrite: bool = False,
    progress: Progress = lambda _: None,
    tracer: Tracer = trace,
) -> Manifest:
    """Write the bundle of a model at one precision for one target, whole or not at all, and return its manifest.

    Exports of one blueprint at several precisions may share a `SharedTraces` as their `tracer`.

    Two exports of the same blueprint give the same bytes. Raises UsageError (unknown or unsuited precision or target,
    existing destination, int8 without calibration data), CheckError (a component can't be traced, or its graph is
    not in the asked precision), OSError (the disk).
    """
    place, chosen = require(TARGETS, target, precision)
    if chosen.calibrated and not blueprint.calibration:
        raise UsageError(
            f"{precision} takes its ranges from real inputs, and {blueprint.source.name} has no calibration data; "
            "export fp32 or fp16, or give the model a data set"
        )
    check_destination(destination, overwrite=overwrite)
    graphs, entries = _graphs(blueprint, chosen, place, progress, tracer)
    progress("reference: golden samples in FP64, noise and tolerances")
    golden = make_samples(blueprint.cut, blueprint.golden)
    scope = chosen.emulate(blueprint.cut, blueprint.calibration, place.quantization)
    progress(f"write {destination}")
    with staged(destination, overwrite=overwrite) as directory:
        save_graphs(graphs, directory)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            source=blueprint.source,
            precision=precision,
            target=target,
            opset=place.opset,
            components=entries,
            pipeline=blueprint.cut.pipeline,
            profiles=(blueprint.cut.profile,),
            tolerances=tolerance.derive(blueprint.cut, golden, chosen, scope),
            golden=save_samples(golden, directory),
            tools=tool_versions(),
            files={},
            labels=blueprint.labels,
        )
        return seal(manifest, directory)


class SharedTraces:
    """A tracer that traces each component of one blueprint once per opset, and hands out copies to be rewritten."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, int], ir.Model] = {}

    def __call__(self, component: Component, profile: Profile, opset: int) -> ir.Model:
        """What `trace` returns."""
        key = component.name, opset
        if key not in self._models:
            self._models[key] = trace(component, profile, opset)
        return self._models[key].clone()


def seal(manifest: Manifest, directory: Path) -> Manifest:
    """Write the card and then, last of all, the manifest with every file's hash."""
    write_card(manifest, directory)
    complete = dataclasses.replace(manifest, files=_files(directory))
    write_manifest(directory, complete)
    return complete


def tool_versions() -> dict[str, str]:
    """Versions of the installed packages that shape a bundle."""
    installed = {
        name.lower(): distribution.version for distribution in metadata.distributions() if (name := distribution.name)
    }
    return {name: installed[name] for name in TOOLS if name in installed}


def _graphs(
    blueprint: Blueprint, precision: Precision, target: Target, progress: Progress, tracer: Tracer
) -> tuple[dict[str, ir.Model], tuple[ComponentEntry, ...]]:
    graphs, entries = {}, []
    for component in blueprint.cut.components:
        progress(f"{component.name}: trace")
        model = tracer(component, blueprint.cut.profile, target.opset)
        entries.append(_entry(component, model, blueprint.cut, precision))
        progress(f"{component.name}: {precision.name}")
        stream = functools.partial(_calibration, blueprint, component.name)
        model = precision.rewrite(model, Request(component.name, target.quantization, stream))
        prove(model, component.inputs, blueprint.cut.profile, precision)
        graphs[component.name] = model
    return graphs, tuple(entries)


def _entry(component: Component, model: ir.Model, cut: Cut, precision: Precision) -> ComponentEntry:
    return ComponentEntry(
        name=component.name,
        onnx=f"onnx/{component.name}.onnx",
        inputs=component.inputs,
        outputs=component.outputs,
        precision=precision.name,
        parameters=count.parameters(model),
        flops=count.flops(model, component.inputs, cut.profile),
    )


def _calibration(blueprint: Blueprint, component: str) -> Iterator[Feeds]:
    """The component's reference inputs over the calibration set: every repetition and piece, one at a time."""
    reference = Reference(blueprint.cut)
    for feeds in blueprint.calibration:
        yield from (a.inputs for a in reference.applications(feeds) if a.component == component)


def _files(directory: Path) -> dict[str, FileEntry]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): file_entry(path) for path in paths}
