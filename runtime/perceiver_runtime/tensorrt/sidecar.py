"""The JSON record of an engine: what it was built from, by which TensorRT, for which GPU. Read before the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from perceiver_runtime.errors import BundleError
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.versions import Schema
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.tensorrt.dialect import version_of
from perceiver_runtime.tensors import Profile

SIDECAR_SCHEMA = Schema("sidecar", 1, "build the engine again")


@dataclass(frozen=True)
class Sidecar:
    """Identity of one engine.

    `compute_capabilities` are those it runs on (`8.7`); `graph_sha256` covers the ONNX file and its external
    weights; `products` counts the network's matrix products by the type of their operands, which a strongly
    typed build keeps: the proof of precision that needs no GPU. `device_bytes` is what one execution context asks
    for, known only where the engine could be deserialised after the build. `attention` is the form that was built,
    `products` or `operator`; `fused_attention` counts the kernels that compute an attention whole, in TensorRT's list
    of layers, and is None where there is no list.
    """

    schema_version: int
    component: str
    module: str
    tensorrt: str
    compute_capabilities: tuple[str, ...]
    platform: str
    graph_sha256: str
    engine_sha256: str
    engine_bytes: int
    profiles: tuple[Profile, ...]
    flags: tuple[str, ...]
    workspace_bytes: int
    products: Mapping[str, int]
    jetpack: str | None = None
    device: str | None = None
    device_bytes: int | None = None
    attention: str = "products"
    fused_attention: int | None = None

    @property
    def version_compatible(self) -> bool:
        """Whether a newer TensorRT may run it."""
        return "VERSION_COMPATIBLE" in self.flags


@dataclass(frozen=True)
class DeviceIdentity:
    """TensorRT and GPU of this machine, which an engine must match."""

    module: str
    tensorrt: str
    compute_capability: str
    platform: str
    jetpack: str | None = None


def engine_path(target: str, component: str) -> str:
    """Path of an engine inside its bundle."""
    return f"engines/{target}/{component}.plan"


def sidecar_path(target: str, component: str) -> str:
    """Path of an engine's sidecar inside its bundle."""
    return f"engines/{target}/{component}.json"


def layers_path(target: str, component: str) -> str:
    """Path of the engine inspector's JSON inside its bundle."""
    return f"engines/{target}/{component}.layers.json"


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write it as sorted, indented JSON."""
    path.write_text(strict_json.dumps(schema.encode(sidecar), sort_keys=True) + "\n", encoding="utf-8")


def read_sidecar(path: Path) -> Sidecar:
    """Read it. Raises BundleError if it is missing, no JSON, of another schema, or incomplete."""
    try:
        return parse_sidecar(path.read_bytes(), path)
    except OSError as error:
        raise BundleError(f"{path}: expected an engine's sidecar, got {error}; build the engine again") from error


def parse_sidecar(data: bytes, path: Path) -> Sidecar:
    """The sidecar that was read from `path`. Raises BundleError."""
    try:
        content = strict_json.loads(data)
    except ValueError as error:
        raise BundleError(f"{path}: expected an engine's sidecar, got {error}; build the engine again") from error
    return schema.decode(Sidecar, SIDECAR_SCHEMA.upgrade(content, path), str(path))


def graph_sha256(manifest: Manifest, component: str) -> str:
    """Hash over the ONNX file of a component and its weights: all other files of its folder but graphs."""
    own = manifest.component(component).onnx
    graphs = {entry.onnx for entry in manifest.components}
    folder = PurePosixPath(own).parent
    used = {p: f.sha256 for p, f in manifest.files.items() if p == own or (p not in graphs and _below(p, folder))}
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()


def check_graph(sidecar: Sidecar, graph: str) -> None:
    """Compare an engine with its graph, before it is deserialised. Raises BundleError if that has changed."""
    if sidecar.graph_sha256 != graph:
        raise BundleError(
            f"engine {sidecar.component}: built from graph {sidecar.graph_sha256[:12]}, the bundle holds {graph[:12]}; "
            "build the engine again"
        )


def differences(sidecar: Sidecar, identity: DeviceIdentity) -> list[tuple[str, str, str]]:
    """Properties that keep an engine from running on a machine: (property, of the engine, of the machine)."""
    capabilities = ", ".join(sidecar.compute_capabilities)
    checks = (
        (
            "module",
            _family(sidecar.module),
            _family(identity.module),
            _family(sidecar.module) == _family(identity.module),
        ),
        ("TensorRT", sidecar.tensorrt, identity.tensorrt, _version_fits(sidecar, identity)),
        (
            "compute capability",
            capabilities,
            identity.compute_capability,
            identity.compute_capability in sidecar.compute_capabilities,
        ),
        ("platform", sidecar.platform, identity.platform, sidecar.platform == identity.platform),
        ("JetPack", str(sidecar.jetpack), str(identity.jetpack), _jetpack_fits(sidecar, identity)),
    )
    return [(what, expected, got) for what, expected, got, fits in checks if not fits]


def _family(module: str) -> str:
    """The lean and dispatch runtimes run `tensorrt`'s engines."""
    return module.removesuffix("_lean").removesuffix("_dispatch")


def _version_fits(sidecar: Sidecar, identity: DeviceIdentity) -> bool:
    """Equal versions; for a version-compatible engine also newer ones of the same or the next major version."""
    if not sidecar.version_compatible:
        return sidecar.tensorrt == identity.tensorrt
    built, here = version_of(sidecar.tensorrt), version_of(identity.tensorrt)
    return built <= here and here[0] - built[0] <= 1


def _jetpack_fits(sidecar: Sidecar, identity: DeviceIdentity) -> bool:
    return sidecar.jetpack is None or sidecar.version_compatible or sidecar.jetpack == identity.jetpack


def _below(path: str, folder: PurePosixPath) -> bool:
    return folder in PurePosixPath(path).parents
