"""`build`: engines for a target on this machine, or a kit that builds them on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perceiver_exporters.bundle.stored_graphs import stored_graph
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.precision.proof.operands import count_products
from perceiver_exporters.preflight import PreflightReport, check, engine_target
from perceiver_exporters.preflight.report import EngineMemoryEstimate
from perceiver_exporters.targets.target import TARGETS, EngineTarget, Target
from perceiver_runtime.bundle import file_entry, load_bundle, write_manifest
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.cuda.library import load_cudart
from perceiver_runtime.errors import CheckError, UnavailableError
from perceiver_runtime.format.staging import staged
from perceiver_runtime.measure.parity import component_failure
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensorrt.builder.bundle import EngineOptions, EngineReport, build_engines
from perceiver_runtime.tensorrt.builder.device_build import build_here
from perceiver_runtime.tensorrt.builder.kit import KIT_NAME, KIT_SCHEMA, BuildKit, write_kit
from perceiver_runtime.tensorrt.summary import MODEL_CARD, describe_in_model_card

SCRIPT_NAME = "build.sh"
STALE_ENGINES = ("PF011", "PF012")
"""Preflight checks of engines that a build replaces; they do not block it."""
_SCRIPT = """#!/bin/sh
# Builds this bundle's engines on the device: TensorRT and perceiver-runtime are all that it needs.
# Modules are never looked for here or in the working directory: `-m` would, and -P is not known to Python 3.10.
exec "${PYTHON:-python3}" -c 'import os, sys
kit = os.path.realpath(sys.argv[1])
sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) != kit]
from perceiver_runtime.cli.main import main
sys.exit(main(["build", *sys.argv[1:]]))' "$(dirname -- "$0")" "$@"
"""


@dataclass(frozen=True)
class BuildOutcome:
    """Engines in the bundle, or a kit for the device and the reason for it."""

    target: str
    preflight: PreflightReport
    engines: tuple[EngineReport, ...] = ()
    kit: Path | None = None
    reason: str = ""


def build(
    bundle: str | Path,
    target: str,
    *,
    kit: str | Path | None = None,
    workspace: int | None = None,
    memory: int | None = None,
    overwrite: bool = False,
) -> BuildOutcome:
    """Add engines for a target to a bundle, or write a build kit where this machine can't build them.

    Args:
        bundle: The bundle.
        target: Name of the target.
        kit: Directory of the kit (None: beside the bundle).
        workspace: Bytes of scratch memory (None: the preflight estimate; the memory of the largest board for engines
            built ahead of time, which need no GPU).
        memory: Bytes of memory of the device (None: the board's).
        overwrite: Replace an existing kit.

    Raises:
        CheckError: A preflight check blocks the build, or an engine has fewer products in the bundle's precision than
            its graph.
        BuildError: TensorRT fails.
        BundleError: The bundle is damaged.
        UsageError: Unknown target, or existing kit.
    """
    path = Path(bundle)
    place, engines = engine_target(TARGETS, target)
    preflight = check(path, target, memory)
    if blocked := [f for f in preflight.findings if f.verdict == "blocked" and f.check not in STALE_ENGINES]:
        raise CheckError(f"{path} for {target}: " + "; ".join(f"{f.check} {f.message}: {f.remedy}" for f in blocked))
    allowed = _workspace(place, preflight.memory) if workspace is None else workspace
    here = _builder(engines, load_bundle(path).manifest.precision)
    if callable(here):
        built = here(path, target, allowed)
        _prove(path, built)
        return BuildOutcome(target, preflight, built)
    destination = Path(kit) if kit is not None else path.with_name(f"{path.name}-{target}-kit")
    write_build_kit(path, destination, place, engines, preflight, allowed, overwrite=overwrite)
    return BuildOutcome(target, preflight, kit=destination, reason=here)


def _workspace(target: Target, memory: EngineMemoryEstimate) -> int:
    """Bytes of scratch memory that a build may use; TensorRT uses what it needs, and fails if that is more."""
    if target.engines is not None and target.engines.ahead:
        return max(memory.workspace, *(board.memory for board in target.boards))
    return memory.workspace


def _prove(bundle: Path, built: tuple[EngineReport, ...]) -> None:
    """Compare each engine's products with its graph's. INT4 products compute in their input's type."""
    loaded = load_bundle(bundle)
    precision = loaded.manifest.precision
    for engine in built if precision != "int4" else ():
        graph = stored_graph(loaded, loaded.manifest.component(engine.component).onnx)
        expected, found = count_products(graph, PRECISIONS[precision]), engine.products.get(precision, 0)
        if found < expected:
            raise CheckError(
                f"engine {engine.component}: expected {expected} matrix products in {precision}, found {found} "
                f"({dict(engine.products)}): TensorRT computes the rest in another type; report this"
            )


def write_build_kit(
    bundle: Path,
    destination: Path,
    target: Target,
    engines: EngineTarget,
    preflight: PreflightReport,
    workspace: int,
    *,
    overwrite: bool = False,
) -> None:
    """Copy a bundle and add what the device needs to know, and one command. Raises UsageError, OSError."""
    loaded = load_bundle(bundle)
    kit = BuildKit(
        schema_version=KIT_SCHEMA.version,
        target=target.name,
        module=engines.module,
        tensorrt=".".join(map(str, engines.tensorrt)),
        compute_capabilities=engines.capabilities(loaded.manifest.precision),
        workspace=workspace,
        build_peak=preflight.memory.build_peak - preflight.memory.workspace + workspace,
        run_peak=preflight.memory.run_peak,
    )
    with staged(destination, overwrite=overwrite) as directory:
        files = {path: entry for path, entry in loaded.manifest.files.items() if not path.startswith("engines/")}
        for relative in files:
            (directory / relative).parent.mkdir(parents=True, exist_ok=True)
            loaded.files[relative].copy(directory / relative)
        write_kit(directory / KIT_NAME, kit)
        (directory / SCRIPT_NAME).write_text(_SCRIPT, encoding="utf-8")
        (directory / SCRIPT_NAME).chmod(0o755)
        describe_in_model_card(directory, _kit_lines(kit))
        changed = [KIT_NAME, SCRIPT_NAME, *([MODEL_CARD] if MODEL_CARD in files else [])]
        added = {name: file_entry(directory / name) for name in changed}
        write_manifest(directory, dataclasses.replace(loaded.manifest, files={**files, **added}))


def _kit_lines(kit: BuildKit) -> tuple[str, ...]:
    """The kit's README on its engines."""
    return (
        f"None yet: this is a build kit for `{kit.target}` ({kit.module} {kit.tensorrt} or newer, compute capability "
        f"{', '.join(kit.compute_capabilities)}). Run `./{SCRIPT_NAME}` on the device. `open_session(bundle)` then "
        "runs the engines; before that, ONNX Runtime on the processor.",
    )


Build = Callable[[Path, str, int], tuple[EngineReport, ...]]


def _builder(engines: EngineTarget, precision: str) -> Build | str:
    """How to build for the target on this machine, or why that is impossible."""
    if engines.ahead:
        trt = load_tensorrt(engines.module)
        capabilities = engines.capabilities(precision)
        return lambda path, target, workspace: build_engines(
            path, target, trt, EngineOptions(workspace=workspace, compute_capabilities=capabilities)
        )
    try:
        trt, cudart = load_tensorrt(engines.module), load_cudart()
    except UnavailableError as error:
        return f"TensorRT builds on the GPU that it builds for, and here {error}"
    capability = CudaDevice(cudart).compute_capability()
    if capability not in engines.compute_capabilities:
        wanted = ", ".join(engines.compute_capabilities)
        return f"TensorRT builds for the GPU that it runs on: {capability} here, {wanted} on the target"
    return lambda path, target, workspace: build_here(
        path, trt, cudart, target=target, workspace=workspace, parity=component_failure
    )
