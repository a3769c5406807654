"""Add engines to a bundle, all of them or none: the bundle is exchanged whole when they are complete and on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from perceiver_runtime.bundle import Bundle, file_entry, load_bundle, write_manifest
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.external_data import linked
from perceiver_runtime.format.names import check_name
from perceiver_runtime.format.staging import staged
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.progress import track
from perceiver_runtime.tensorrt.builder.build import DEFAULT_WORKSPACE, BuildDevice, BuildRequest, flag_names
from perceiver_runtime.tensorrt.builder.forms import FormOptions, build_form
from perceiver_runtime.tensorrt.builder.profiles import component_profiles
from perceiver_runtime.tensorrt.builder.reuse import Reuse, reuse
from perceiver_runtime.tensorrt.sidecar import (
    Sidecar,
    engine_path,
    graph_sha256,
    layers_path,
    sidecar_path,
    write_sidecar,
)
from perceiver_runtime.tensorrt.summary import MODEL_CARD, describe_in_model_card, engines_in, model_card_lines


@dataclass(frozen=True)
class EngineOptions:
    """How to build; see `BuildRequest`. `device` is the GPU in this machine, if there is one.

    `form` says how attention is built (on `device`). With `reusing`, engines that fit are not built again.
    """

    workspace: int = DEFAULT_WORKSPACE
    compute_capabilities: tuple[str, ...] = ()
    version_compatible: bool = False
    timing_cache: Path | None = None
    device: BuildDevice | None = None
    form: FormOptions = field(default_factory=FormOptions)
    reusing: Reuse | None = None


@dataclass(frozen=True)
class EngineReport:
    """What one build took and gave.

    `products` counts matrix products by the type that they are computed in. `attention` says which form of attention
    was built, and why not another. An engine that was `kept` was not built; its `layers` are not known.
    """

    component: str
    target: str
    seconds: float
    engine_bytes: int
    layers: int | None
    products: Mapping[str, int]
    sha256: str
    warnings: tuple[str, ...]
    attention: str = ""
    kept: bool = False


def build_engines(
    path: Path | Bundle,
    target: str,
    trt: ModuleType,
    options: EngineOptions,
) -> tuple[EngineReport, ...]:
    """Build every component of the bundle (or of the one at `path`) for `target`, and put the engines into it.

    Engines of the same target are replaced, those of others kept. An exception, a full disk or SIGKILL leaves the
    bundle as it was. Raises BuildError (TensorRT refuses a graph), BundleError, UsageError (`target` is no name for a
    folder; the bundle was changed by someone else meanwhile).
    """
    check_name(target, "target", UsageError)
    bundle = path if isinstance(path, Bundle) else load_bundle(path)
    bundle.check_whole()  # the engines are tied to these hashes

    def confirm() -> None:
        with load_bundle(bundle.path) as now:
            changed = now.manifest.digest != bundle.manifest.digest
        if changed:
            raise UsageError(f"{bundle.path}: changed by someone else while its engines were built; build again")

    with staged(bundle.path, overwrite=True, confirm=confirm) as directory:
        _link(bundle, target, directory)
        reports = tuple(
            _build(bundle, component, target, trt, options, directory)
            for component in track([entry.name for entry in bundle.manifest.components], f"engines for {target}")
        )
        _seal(bundle, directory)
    return reports


def _build(
    bundle: Bundle,
    component: str,
    target: str,
    trt: ModuleType,
    options: EngineOptions,
    directory: Path,
) -> EngineReport:
    entry = bundle.manifest.component(component)
    if options.reusing is not None:
        flags = flag_names(version_compatible=options.version_compatible)
        if (found := reuse(options.reusing, bundle, entry, target, flags, directory)) is not None:
            return _kept(found, target)
    with linked(bundle, entry.onnx, bundle.read(entry.onnx)) as graph:
        request = _request(bundle, entry, graph, options)
        made = build_form(trt, bundle, entry, request, dataclasses.replace(options.form, device=options.device))
    built, sidecar = made.built, made.built.sidecar
    plan = directory / engine_path(target, component)
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(built.plan)
    if made.inspection is not None:
        (directory / layers_path(target, component)).write_text(made.inspection.layers, encoding="utf-8")
    write_sidecar(directory / sidecar_path(target, component), sidecar)
    return EngineReport(
        component,
        target,
        built.seconds,
        len(built.plan),
        built.layers,
        sidecar.products,
        sidecar.engine_sha256,
        built.log,
        f"{sidecar.attention} ({made.reason})",
    )


def _kept(sidecar: Sidecar, target: str) -> EngineReport:
    return EngineReport(
        sidecar.component,
        target,
        0.0,
        sidecar.engine_bytes,
        None,
        sidecar.products,
        sidecar.engine_sha256,
        (),
        sidecar.attention,
        kept=True,
    )


def _request(bundle: Bundle, entry: ComponentEntry, graph: bytes, options: EngineOptions) -> BuildRequest:
    return BuildRequest(
        component=entry.name,
        onnx=bundle.file(entry.onnx),
        inputs=entry.inputs,
        profiles=component_profiles(bundle.manifest, entry),
        graph_sha256=graph_sha256(bundle.manifest, entry.name),
        workspace=options.workspace,
        compute_capabilities=options.compute_capabilities,
        version_compatible=options.version_compatible,
        timing_cache=options.timing_cache,
        graph=graph,
    )


def _link(bundle: Bundle, target: str, directory: Path) -> None:
    """All files of the bundle but this target's engines, without copying them where the file system has hard links."""
    for relative in bundle.manifest.files:
        if relative.startswith(f"engines/{target}/"):
            continue
        place = directory / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        bundle.files[relative].place(place)


def _seal(bundle: Bundle, directory: Path) -> None:
    names = [component.name for component in bundle.manifest.components]
    describe_in_model_card(directory, model_card_lines(engines_in(directory, names)))
    kept = {n: entry for n, entry in bundle.manifest.files.items() if (directory / n).is_file()}
    paths = sorted(path for path in (directory / "engines").rglob("*") if path.is_file())
    paths += [directory / MODEL_CARD] if MODEL_CARD in kept else []
    written = {path.relative_to(directory).as_posix(): file_entry(path) for path in paths}
    write_manifest(directory, dataclasses.replace(bundle.manifest, files={**kept, **written}))
