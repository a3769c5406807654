"""Load a bundle: nothing is given to a parser before its path, size and hash are known to be right."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from perceiver_runtime import schema, strict_json
from perceiver_runtime.errors import BundleError
from perceiver_runtime.machine import usable_cores
from perceiver_runtime.manifest import MANIFEST_NAME, PIECE_BYTES, SCHEMA_VERSION, FileEntry, Manifest
from perceiver_runtime.wiring import check_wiring

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were all present and whole when it was loaded."""

    path: Path
    manifest: Manifest

    def file(self, relative: str) -> Path:
        """Where a file of the bundle is."""
        return self.path / relative


def load_bundle(path: str | Path) -> Bundle:
    """Load the bundle in a directory.

    Raises BundleError, with a message of its own for each kind of damage: no manifest, unknown schema, a path that
    leaves the directory, a missing or unlisted file, a wrong size or hash, steps that do not fit together.
    """
    bundle = read_bundle(path)
    check_wiring(bundle.manifest)
    return bundle


def read_bundle(path: str | Path) -> Bundle:
    """`load_bundle` without holding the pipeline's steps against each other: for tools that look for what is wrong."""
    directory = Path(path)
    manifest = _read_manifest(directory)
    _check_listed(manifest)
    for relative, entry in manifest.files.items():
        _check_size(directory, relative, entry)
    _check_hashes(directory, manifest.files)
    _check_unlisted(directory, manifest)
    return Bundle(directory, manifest)


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write `manifest.json` as sorted, indented JSON, and return its path."""
    path = directory / MANIFEST_NAME
    path.write_text(strict_json.dumps(schema.encode(manifest), sort_keys=True) + "\n", encoding="utf-8")
    return path


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of a file as it is now, and of its pieces if there are several."""
    size = path.stat().st_size
    starts = range(0, size, PIECE_BYTES) if size > PIECE_BYTES else ()
    return FileEntry(_sha256(path), size, tuple(_sha256(path, start, PIECE_BYTES) for start in starts))


def _sha256(path: Path, start: int = 0, length: int | None = None) -> str:
    """Of `length` bytes (None: all) from `start`, or of as many as there are."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        left = sys.maxsize if length is None else length
        while block := file.read(min(BLOCK_BYTES, left)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _read_manifest(directory: Path) -> Manifest:
    if not directory.is_dir():
        raise BundleError(f"{directory}: expected a bundle directory; there is none. Check the path or export again")
    path = _inside(directory, MANIFEST_NAME)
    if not path.is_file():
        raise BundleError(f"{directory}: no {MANIFEST_NAME}; not a bundle, or its export was interrupted: export again")
    try:
        content = strict_json.loads(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path}: no valid JSON ({error}); copy the bundle or export again") from error
    _check_schema(content, path)
    return schema.decode(Manifest, content)


def _check_schema(content: Any, path: Path) -> None:
    version = content.get("schema_version") if isinstance(content, Mapping) else None
    if type(version) is not int:
        raise BundleError(f"{path}: expected an object with an integer schema_version, got {version!r:.40}")
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"manifest schema {version}; this runtime reads {SCHEMA_VERSION}; upgrade perceiver-runtime or export again"
        )


def _check_listed(manifest: Manifest) -> None:
    used = (*(component.onnx for component in manifest.components), *manifest.golden)
    if missing := [relative for relative in used if relative not in manifest.files]:
        raise BundleError(f"manifest: {', '.join(missing)} used but not listed under files: export again")


def _inside(directory: Path, relative: str) -> Path:
    """The path of a file in the bundle. Raises BundleError if it leads out: absolute, `..`, or through a link."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts:
        raise BundleError(f"manifest: path {relative!r} leaves the bundle; expected a relative path without '..'")
    path = directory / pure
    if not path.resolve().is_relative_to(directory.resolve()):
        raise BundleError(f"{path}: a link that leaves the bundle; copy the file itself into the bundle")
    return path


def _check_size(directory: Path, relative: str, entry: FileEntry) -> None:
    path = _inside(directory, relative)
    if not path.is_file():
        raise BundleError(f"{path}: listed in the manifest but missing; copy the bundle whole or export again")
    if (size := path.stat().st_size) != entry.size:
        raise BundleError(f"{path}: expected {entry.size} bytes, got {size}; copy the bundle again")
    if entry.pieces and len(entry.pieces) != -(-entry.size // PIECE_BYTES):
        raise BundleError(f"{path}: expected a hash for every {PIECE_BYTES} of {entry.size} bytes; export again")


def _check_hashes(directory: Path, files: Mapping[str, FileEntry]) -> None:
    """On all cores: hashing gives Python's lock free."""
    from concurrent.futures import ThreadPoolExecutor  # a tenth of this package's import time

    parts: list[tuple[Path, str, int, int | None]] = []
    for relative, entry in files.items():
        path = _inside(directory, relative)
        parts += [(path, d, i * PIECE_BYTES, PIECE_BYTES) for i, d in enumerate(entry.pieces)] or [
            (path, entry.sha256, 0, None)
        ]
    with ThreadPoolExecutor(usable_cores()) as pool:
        digests = pool.map(lambda part: _sha256(part[0], part[2], part[3]), parts)
        for (path, expected, start, _), digest in zip(parts, digests, strict=True):
            if digest != expected:
                where = f" from byte {start}" if start else ""
                raise BundleError(
                    f"{path}{where}: expected sha256 {expected}, got {digest}; the file was changed or damaged"
                )


def _check_unlisted(directory: Path, manifest: Manifest) -> None:
    """Beside a graph may only lie what was hashed: a graph can name any file there as its weights."""
    for folder in {(directory / component.onnx).parent for component in manifest.components}:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(directory).as_posix()
            if path.is_file() and relative != MANIFEST_NAME and relative not in manifest.files:
                raise BundleError(f"{path}: not listed in the manifest; remove it or export again")
