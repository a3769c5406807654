"""Subject of the preflight checks: a bundle's manifest, its graphs at their largest shapes, its engines' sidecars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from perceiver_exporters.bundle.stored_graphs import stored_graph
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.targets.target import EngineTarget, Target
from perceiver_runtime.bundle import Bundle, read_bundle
from perceiver_runtime.errors import BundleError
from perceiver_runtime.manifest import ComponentEntry, Manifest
from perceiver_runtime.tensorrt.builder.profiles import component_profiles
from perceiver_runtime.tensorrt.dialect import Dialect, dialect_of
from perceiver_runtime.tensorrt.sidecar import Sidecar, parse_sidecar, sidecar_path
from perceiver_runtime.tensors import Profile, Range


@dataclass(frozen=True)
class Subject:
    """A bundle, read for its target.

    Attributes:
        manifest: The bundle's manifest.
        target: The target.
        engines: TensorRT and GPUs of the target.
        dialect: What the target's oldest TensorRT supports.
        graphs: Stored graphs by component.
        largest: Graphs with the shapes of the profiles' largest sizes, for components whose sizes are known.
        profiles: Profiles by component.
        sidecars: Descriptions of the engines that the bundle has for the target.
        memory: Bytes of memory of the board, if the user named it.
    """

    manifest: Manifest
    target: Target
    engines: EngineTarget
    dialect: Dialect
    graphs: Mapping[str, ir.Model]
    largest: Mapping[str, ir.Graph]
    profiles: Mapping[str, tuple[Profile, ...]]
    sidecars: tuple[Sidecar, ...] = ()
    memory: int | None = None


def read_subject(path: Path, target: Target, engines: EngineTarget, memory: int | None = None) -> Subject:
    """Read a bundle, except for the content of its weights. Raises BundleError for damage."""
    bundle = read_bundle(path)
    manifest = bundle.manifest
    graphs = {entry.name: _typed(stored_graph(bundle, entry.onnx)) for entry in manifest.components}
    profiles = {entry.name: _profiles(manifest, entry) for entry in manifest.components}
    version = ".".join(map(str, engines.tensorrt))
    return Subject(
        manifest,
        target,
        engines,
        dialect_of(engines.module, version),
        graphs,
        {e.name: g for e in manifest.components if (g := _largest(graphs[e.name], e, profiles[e.name])) is not None},
        profiles,
        _sidecars(bundle, target.name),
        memory,
    )


def _typed(graph: ir.Model) -> ir.Model:
    """The graph with inferred types of all values."""
    common.ShapeInferencePass()(graph)
    return graph


def _profiles(manifest: Manifest, entry: ComponentEntry) -> tuple[Profile, ...]:
    """The component's profiles, or () if the pipeline's wiring is broken: other checks can still run."""
    try:
        return component_profiles(manifest, entry)
    except (BundleError, KeyError):
        return ()


def _largest(graph: ir.Model, entry: ComponentEntry, profiles: tuple[Profile, ...]) -> ir.Graph | None:
    symbols = {symbol for spec in entry.inputs for symbol in spec.symbols}
    sizes = {s: max((p.dimensions[s].max for p in profiles if s in p.dimensions), default=0) for s in symbols}
    if not all(sizes.values()):
        return None
    return SizedGraph(graph, entry.inputs, Profile("largest", {s: Range(n, n, n) for s, n in sizes.items()})).opt


def _sidecars(bundle: Bundle, target: str) -> tuple[Sidecar, ...]:
    paths = [sidecar_path(target, entry.name) for entry in bundle.manifest.components]
    return tuple(parse_sidecar(bundle.read(path), bundle.file(path)) for path in paths if path in bundle.manifest.files)
