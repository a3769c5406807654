"""Engines that need not be built again: of the same graph, for this machine, with the same options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensorrt.builder.profiles import component_profiles
from perceiver_runtime.tensorrt.sidecar import (
    DeviceIdentity,
    Sidecar,
    differences,
    engine_path,
    graph_sha256,
    layers_path,
    parse_sidecar,
    sidecar_path,
)


@dataclass(frozen=True)
class Reuse:
    """Where engines may come from (`bundles`, the first first), and the machine that they must fit."""

    identity: DeviceIdentity
    bundles: Sequence[Bundle]


def reuse(
    reusing: Reuse, bundle: Bundle, entry: ComponentEntry, target: str, flags: tuple[str, ...], directory: Path
) -> Sidecar | None:
    """Put a component's engine into the directory, if one of the bundles has it. Raises BundleError (a sidecar)."""
    for source in reusing.bundles:
        sidecar = _fitting(reusing.identity, source, bundle, entry, target, flags)
        if sidecar is None:
            continue
        for path in (engine_path, sidecar_path, layers_path):
            relative = path(target, entry.name)
            if relative in source.manifest.files:
                (directory / relative).parent.mkdir(parents=True, exist_ok=True)
                source.files[relative].place(directory / relative)
        return sidecar
    return None


def _fitting(
    identity: DeviceIdentity, source: Bundle, bundle: Bundle, entry: ComponentEntry, target: str, flags: tuple[str, ...]
) -> Sidecar | None:
    engine, place = engine_path(target, entry.name), sidecar_path(target, entry.name)
    listed = source.manifest.files
    if engine not in listed or place not in listed:
        return None
    sidecar = parse_sidecar(source.read(place), source.file(place))
    same = (
        sidecar.graph_sha256 == graph_sha256(bundle.manifest, entry.name)
        and sidecar.engine_sha256 == listed[engine].sha256
        and sidecar.profiles == component_profiles(bundle.manifest, entry)
        and sidecar.flags == flags
        and not differences(sidecar, identity)
    )
    return sidecar if same else None
