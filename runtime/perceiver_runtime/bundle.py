"""Load a bundle. Paths, sizes and hashes are checked before a file is parsed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType

from perceiver_runtime.errors import BundleError
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.digest import FIELD, checked, sealed
from perceiver_runtime.format.files import BLOCK_BYTES, HeldFile, Part, open_directory, open_file, unlisted
from perceiver_runtime.format.names import check_name
from perceiver_runtime.format.signature import SIGNATURE_BYTES, SIGNATURE_NAME, PublicKeys, check_signature
from perceiver_runtime.format.versions import Schema
from perceiver_runtime.format.wiring import check_wiring
from perceiver_runtime.machine import usable_cores
from perceiver_runtime.manifest import MANIFEST_NAME, PIECE_BYTES, SCHEMA_VERSION, FileEntry, Manifest

MANIFEST_SCHEMA = Schema("manifest", SCHEMA_VERSION, "export again", retired=frozenset(("metrics",)))
MAX_MANIFEST_BYTES = 1 << 22
"""Of `manifest.json`: one with the names of 20,000 classes is half of it."""
ATTEMPTS = 10
"""How often a bundle is read that is replaced meanwhile."""


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle. All its files were complete when it was loaded, and stay open until it is closed.

    A context manager that closes it.

    Attributes:
        path: Directory of the bundle.
        manifest: Its description.
        files: Open files by path in the bundle.
        copy_weights: Whether sessions copy external weights instead of mapping them.
        mapped: Files that sessions have mapped.
        signature: Content of its signature, unchecked; None if it has none.
    """

    path: Path
    manifest: Manifest
    files: Mapping[str, HeldFile] = field(repr=False, compare=False)
    copy_weights: bool = False
    mapped: list[HeldFile] = field(default_factory=list, repr=False, compare=False)
    signature: bytes | None = field(default=None, repr=False)

    def file(self, relative: str) -> Path:
        """Path of a file of the bundle, for messages and for tools that can't read bytes."""
        return self.path / relative

    def read(self, relative: str) -> bytes:
        """Content of a listed file; its hash has been checked. Raises BundleError."""
        if relative not in self.files:
            raise BundleError(f"{self.file(relative)}: not listed in the manifest; export again")
        return self.files[relative].read()

    def weights(self, onnx: str, location: str) -> HeldFile:
        """The file with a graph's external weights.

        Args:
            onnx: Path of the graph in the bundle.
            location: Location of the weights as the graph names it.

        Returns:
            The open file.

        Raises:
            BundleError: The file is not listed in the manifest.
        """
        pure = PurePosixPath(location)
        relative = (PurePosixPath(onnx).parent / pure).as_posix()
        if ".." in pure.parts or relative not in self.files:
            raise BundleError(
                f"{self.file(onnx)}: can't load it: its weights {location!r:.80} are not listed in the manifest; "
                "copy the bundle whole or export again"
            )
        return self.files[relative]

    def watch(self, file: HeldFile) -> None:
        """Include a file that a session maps in `check_unchanged`."""
        if file not in self.mapped:
            self.mapped.append(file)

    def check_unchanged(self) -> None:
        """Raise BundleError if a mapped file was changed in place."""
        for file in self.mapped:
            file.check()

    def check_whole(self) -> None:
        """Check `sha256` of the files that were checked by pieces when they were opened. Raises BundleError."""
        for name, file in self.files.items():
            if len(file.parts) > 1:
                file.check_part(Part(self.manifest.files[name].sha256, 0, file.size))

    def check_signature(self, keys: PublicKeys) -> None:
        """Raise SignatureError unless one of the public keys has signed the bundle."""
        check_signature(self.signature, self.manifest.digest, keys, self.path)

    def close(self) -> None:
        """Close the files. Open sessions keep what they have read."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_bundle(path: str | Path, *, require_signature: PublicKeys | None = None) -> Bundle:
    """Load a bundle and check it whole.

    Args:
        path: Directory of the bundle.
        require_signature: File with an Ed25519 public key in PEM, or several; one must have signed the bundle.

    Returns:
        The bundle, with its files open.

    Raises:
        BundleError: The manifest is missing or of an unknown schema; a file is missing, unlisted or outside of the
            directory; a size or hash is wrong; or the steps of the pipeline do not fit together.
        SignatureError: None of the keys has signed it, or one can't be used.
        UnavailableError: `cryptography`, which checks signatures, is not installed.
    """
    bundle = read_bundle(path, require_signature)
    check_wiring(bundle.manifest)
    return bundle


def read_bundle(path: str | Path, require_signature: PublicKeys | None = None) -> Bundle:
    """`load_bundle` without checking the wiring of the pipeline, for tools that diagnose it."""
    directory = Path(path)
    for _ in range(ATTEMPTS - 1):
        before = _identity(directory)
        try:
            return _read_once(directory, require_signature)
        except BundleError:
            if _identity(directory) == before:
                raise  # and not because another bundle took its place meanwhile
    return _read_once(directory, require_signature)


def _read_once(directory: Path, require_signature: PublicKeys | None) -> Bundle:
    descriptor = open_directory(directory)
    try:
        manifest = _read_manifest(descriptor, directory)
        signature = _read_signature(descriptor, directory)
        if require_signature is not None:
            check_signature(signature, manifest.digest, require_signature, directory)
        _check_listed(manifest)
        files = {n: _open(descriptor, directory, n, entry) for n, entry in manifest.files.items()}
        _check_unlisted(descriptor, directory, manifest)
    finally:
        os.close(descriptor)
    _check_hashes(files, {component.onnx for component in manifest.components})
    return Bundle(directory, manifest, files, signature=signature)


def _identity(directory: Path) -> tuple[int, ...]:
    """Changes whenever the bundle is replaced."""
    try:
        place, manifest = directory.stat(), (directory / MANIFEST_NAME).stat()
    except OSError:
        return ()
    return place.st_dev, place.st_ino, manifest.st_ino, manifest.st_mtime_ns, manifest.st_size


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Write `manifest.json` as sorted, indented JSON with its digest, and return the manifest as written."""
    empty = schema.encode(dataclasses.replace(manifest, digest=""))
    text, digest = sealed(strict_json.dumps(empty, sort_keys=True) + "\n")
    (directory / MANIFEST_NAME).write_text(text, encoding="utf-8")
    return dataclasses.replace(manifest, digest=digest)


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


def _read_manifest(descriptor: int, directory: Path) -> Manifest:
    path = directory / MANIFEST_NAME
    try:
        found = open_file(descriptor, directory, MANIFEST_NAME)
    except BundleError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise BundleError(
                f"{directory}: no {MANIFEST_NAME}; not a bundle, or its export was interrupted: export again"
            ) from error
        raise
    try:
        with os.fdopen(found, "rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path}: expected at most {MAX_MANIFEST_BYTES:,} bytes, got more; copy the bundle again")
        content = strict_json.loads(data)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: no valid JSON ({error}); copy the bundle or export again") from error
    record = MANIFEST_SCHEMA.upgrade(content, path)
    digest = checked(data, record.get(FIELD, ""), path)
    manifest = dataclasses.replace(schema.decode(Manifest, record), digest=digest)
    check_name(manifest.target, "manifest: target")
    for component in manifest.components:
        check_name(component.name, "manifest: component")
    return manifest


def _read_signature(descriptor: int, directory: Path) -> bytes | None:
    try:
        found = open_file(descriptor, directory, SIGNATURE_NAME)
    except BundleError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    with os.fdopen(found, "rb") as file:
        return file.read(SIGNATURE_BYTES + 1)


def _check_listed(manifest: Manifest) -> None:
    used = (*(component.onnx for component in manifest.components), *manifest.golden)
    if missing := [relative for relative in used if relative not in manifest.files]:
        raise BundleError(f"manifest: {', '.join(missing)} used but not listed under files: export again")


def _open(descriptor: int, directory: Path, relative: str, entry: FileEntry) -> HeldFile:
    path = directory / relative
    pieces = -(-entry.size // PIECE_BYTES)
    parts = [
        Part(digest, i * PIECE_BYTES, min(PIECE_BYTES, entry.size - i * PIECE_BYTES))
        for i, digest in enumerate(entry.pieces)
    ]
    file = HeldFile(open_file(descriptor, directory, relative), path, parts or [Part(entry.sha256, 0, entry.size)])
    if file.size != entry.size:
        raise BundleError(f"{path}: expected {entry.size} bytes, got {file.size}; copy the bundle again")
    if parts and len(parts) != pieces:
        raise BundleError(f"{path}: expected a hash for every {PIECE_BYTES} of {entry.size} bytes; export again")
    return file


def _check_hashes(files: Mapping[str, HeldFile], graphs: set[str]) -> None:
    """Hash on all cores (hashing releases the GIL). Small graphs are kept in memory, since they are parsed next."""
    from concurrent.futures import ThreadPoolExecutor  # a tenth of this package's import time

    with ThreadPoolExecutor(usable_cores()) as pool:
        jobs = [
            pool.submit(file.keep) if name in graphs and len(file.parts) == 1 else pool.submit(file.check_part, part)
            for name, file in files.items()
            for part in file.parts
        ]
        for job in jobs:
            job.result()


def _check_unlisted(descriptor: int, directory: Path, manifest: Manifest) -> None:
    """Refuse unlisted files: a graph could refer to one, and Python could import one."""
    try:
        for relative in unlisted(descriptor, {MANIFEST_NAME, SIGNATURE_NAME, *manifest.files}):
            raise BundleError(f"{directory / relative}: not listed in the manifest; remove it or export again")
    except OSError as error:
        raise BundleError(f"{directory}: can't be looked through: {error}; copy the bundle again") from error
