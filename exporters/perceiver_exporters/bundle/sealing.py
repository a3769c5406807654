"""The last step of writing a bundle: model card, hashes of all files, manifest."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from pathlib import Path

from perceiver_exporters.bundle.model_card import write_model_card
from perceiver_runtime.bundle import file_entry, write_manifest
from perceiver_runtime.manifest import MANIFEST_NAME, FileEntry, Manifest

TOOLS = ("perceiver-deploy", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


def seal(manifest: Manifest, directory: Path) -> Manifest:
    """Write the model card, then the manifest with the hash of every file.

    Args:
        manifest: The manifest, complete but for `files`.
        directory: The bundle, whose other files are all written.

    Returns:
        The manifest as written.
    """
    write_model_card(manifest, directory)
    return write_manifest(directory, dataclasses.replace(manifest, files=files_of(directory)))


def tool_versions() -> dict[str, str]:
    """Versions of the installed packages that shape a bundle."""
    installed = {
        name.lower(): distribution.version for distribution in metadata.distributions() if (name := distribution.name)
    }
    return {name: installed[name] for name in TOOLS if name in installed}


def files_of(directory: Path) -> dict[str, FileEntry]:
    """Size and SHA-256 of every file under the directory except its manifest, by relative path."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST_NAME)
    return {path.relative_to(directory).as_posix(): file_entry(path) for path in paths}
