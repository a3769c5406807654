"""A build kit: a bundle with instructions to build its engines on a device that has only the runtime installed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import BundleError, UnavailableError
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.names import check_name
from perceiver_runtime.format.versions import Schema
from perceiver_runtime.tensorrt.dialect import version_of
from perceiver_runtime.tensorrt.sidecar import DeviceIdentity

KIT_NAME = "kit.json"
KIT_SCHEMA = Schema("kit", 1, "make the kit again")


@dataclass(frozen=True)
class BuildKit:
    """What the preflight expects of the device: what needs one is checked there.

    `tensorrt` is the oldest version that will do; `build_peak` and `run_peak` are forecasts in bytes.
    """

    schema_version: int
    target: str
    module: str
    tensorrt: str
    compute_capabilities: tuple[str, ...]
    workspace: int
    build_peak: int
    run_peak: int


def write_kit(path: Path, kit: BuildKit) -> None:
    """Write it as indented JSON."""
    path.write_text(strict_json.dumps(schema.encode(kit), sort_keys=True) + "\n", encoding="utf-8")


def read_kit(bundle: Bundle) -> BuildKit | None:
    """The kit of a bundle, if its manifest lists one. Raises BundleError if it can't be read."""
    if KIT_NAME not in bundle.manifest.files:
        return None
    path = bundle.file(KIT_NAME)
    try:
        content = strict_json.loads(bundle.read(KIT_NAME))
    except ValueError as error:
        raise BundleError(f"{path}: no valid JSON ({error}); make the kit again: perceiver-export build") from error
    kit = schema.decode(BuildKit, KIT_SCHEMA.upgrade(content, path), str(path))
    check_name(kit.target, f"{path}: target")
    return kit


def check_kit(kit: BuildKit, identity: DeviceIdentity, free: int) -> None:
    """Compare a kit with the device that builds it and its `free` bytes of memory. Raises UnavailableError."""
    if problems := list(_problems(kit, identity, free)):
        raise UnavailableError(f"kit for {kit.target}: {'; '.join(problems)}")


def _problems(kit: BuildKit, identity: DeviceIdentity, free: int) -> Iterator[str]:
    """By the ids of the preflight checks (perceiver_exporters.preflight)."""
    if identity.compute_capability not in kit.compute_capabilities:
        yield (
            f"PF011 expected compute capability {', '.join(kit.compute_capabilities)}, this GPU has "
            f"{identity.compute_capability}; make a kit for this device's target"
        )
    if version_of(identity.tensorrt) < version_of(kit.tensorrt):
        yield f"PF012 expected TensorRT {kit.tensorrt} or newer, got {identity.tensorrt}; upgrade JetPack or TensorRT"
    if free < kit.build_peak:
        yield (
            f"PF010 building takes up to {kit.build_peak / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; stop other "
            "programs, add swap, or give a smaller --workspace"
        )
