"""Build the engines of a bundle on the device that will run them: `perceiver-run build`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

from perceiver_runtime.bundle import Bundle, load_bundle
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.tensorrt.api import TARGET_MODULES
from perceiver_runtime.tensorrt.builder.build import DEFAULT_WORKSPACE, BuildDevice
from perceiver_runtime.tensorrt.builder.bundle import EngineOptions, EngineReport, build_engines
from perceiver_runtime.tensorrt.builder.forms import AttentionOption, FormOptions, Parity
from perceiver_runtime.tensorrt.builder.kit import check_kit, read_kit
from perceiver_runtime.tensorrt.builder.reuse import Reuse
from perceiver_runtime.tensorrt.identity import device_identity


def module_for(bundle: Bundle, target: str | None = None) -> str:
    """The TensorRT module that builds a bundle's engines: the kit's, else the one of the target."""
    kit = read_kit(bundle)
    if kit is not None and target in (None, kit.target):
        return kit.module
    known = target if target in TARGET_MODULES else bundle.manifest.target
    return TARGET_MODULES.get(known, "tensorrt")


def build_here(
    path: Path | Bundle,
    trt: ModuleType,
    cudart: Any,
    *,
    target: str | None = None,
    workspace: int | None = None,
    version_compatible: bool = False,
    timing_cache: Path | None = None,
    attention: AttentionOption = "auto",
    parity: Parity | None = None,
    everything: bool = True,
    old: Bundle | None = None,
) -> tuple[EngineReport, ...]:
    """Check the kit against this device, if the bundle is one, and build every component's engine.

    `target` names the engines' folder (None: the kit's, else the bundle's own target). `workspace` bounds TensorRT's
    scratch memory in bytes (None: the kit's, else half of the free memory). `attention` is the form of attention;
    `auto` takes operators only after a check of `parity`. Unless `everything` is built, engines of the bundle that fit
    this machine and its graphs are kept, and those of another bundle `old` are taken over. Raises UnavailableError
    if this is not the device that the kit is for, and what `build_engines` raises.
    """
    bundle = path if isinstance(path, Bundle) else load_bundle(path)
    device = CudaDevice(cudart)
    identity = device_identity(trt, device.compute_capability())
    kit = read_kit(bundle)
    if kit is not None:
        if workspace is not None:
            kit = dataclasses.replace(kit, build_peak=kit.build_peak - kit.workspace + workspace, workspace=workspace)
        check_kit(kit, identity, device.free_bytes())
    options = EngineOptions(
        workspace=workspace or (kit.workspace if kit else max(DEFAULT_WORKSPACE, device.free_bytes() // 2)),
        version_compatible=version_compatible,
        timing_cache=timing_cache,
        device=BuildDevice(identity.compute_capability, device.name(), identity.jetpack),
        form=FormOptions(attention, cuda=device, parity=parity),
        reusing=None if everything else Reuse(identity, (bundle, *([old] if old is not None else []))),
    )
    name = target if target is not None else (kit or bundle.manifest).target
    return build_engines(bundle, name, trt, options)
