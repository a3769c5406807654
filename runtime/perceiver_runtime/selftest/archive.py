"""The file of a self-test: a zip of JSON files, with the SHA-256 of each and one over the whole content."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from perceiver_runtime.errors import BundleError, ReportError
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.outputs import replacing
from perceiver_runtime.format.versions import WRITER, Schema
from perceiver_runtime.release import __version__
from perceiver_runtime.selftest.private import Scrubber
from perceiver_runtime.selftest.records import SelfTest

INDEX = "report.json"
REPORT_SCHEMA = Schema("self-test", 1, "run perceiver-run selftest again")
PARTS: Mapping[str, Any] = get_type_hints(SelfTest)
MAX_BYTES = 64 << 20
"""Of a report, and of all files in it; layers of large engines take a few megabytes."""
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Index:
    """The first file of a report.

    Attributes:
        schema_version: Version of all its files.
        tools: Release that wrote it.
        members: SHA-256 of each other file.
        sha256: Of this record without this field: one digest of the whole content.
    """

    schema_version: int
    tools: Mapping[str, str]
    members: Mapping[str, str]
    sha256: str


def write_report(path: Path, made: SelfTest, bundle: Path) -> Index:
    """Write a report without names and paths of this machine, whole or not at all. Raises OSError (the disk)."""
    scrubber = Scrubber(bundle)
    contents = {
        f"{part}.json": _json(scrubber.clean(schema.encode(getattr(made, part)), paths=part != "layers"))
        for part in PARTS
    }
    index = _index({name: _sha256(content) for name, content in contents.items()}, __version__)
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {INDEX: _json(schema.encode(index)), **contents}.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    return index


def read_report(path: Path) -> tuple[SelfTest, Index]:
    """Read a report and check its schema and hashes.

    Args:
        path: File that `write_report` wrote.

    Returns:
        The content, and its index.

    Raises:
        ReportError: It is no report, of another schema version, or a file is missing, unknown, changed or malformed.
    """
    contents = _members(path)
    if INDEX not in contents:
        raise ReportError(f"{path}: expected a report of perceiver-run selftest, got a zip without {INDEX}")
    try:
        record = REPORT_SCHEMA.upgrade(_parsed(contents.pop(INDEX), INDEX), path)
        index = schema.decode(Index, record, INDEX)
        _check_hashes(index, contents)
        parts = {
            part: schema.decode(kind, _parsed(contents[f"{part}.json"], part), part) for part, kind in PARTS.items()
        }
    except (BundleError, ReportError) as error:
        raise ReportError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    return SelfTest(**parts), index


def _members(path: Path) -> dict[str, bytes]:
    if path.stat().st_size > MAX_BYTES:
        raise ReportError(f"{path}: expected at most {MAX_BYTES >> 20} MiB, which a report never has")
    file = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) != len(entries) or len(entries) > len(PARTS) + 1:
                raise ReportError(f"{path}: expected {len(PARTS) + 1} files of different names, got {len(entries)}")
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise ReportError(f"{path}: expected files of at most {MAX_BYTES >> 20} MiB in all")
            if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
                raise ReportError(f"{path}: expected a zip without other compression than deflate")
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error) as error:
        raise ReportError(
            f"{path}: expected the zip file that perceiver-run selftest wrote: {error}; copy it again"
        ) from error


def _check_hashes(index: Index, contents: Mapping[str, bytes]) -> None:
    expected = {f"{part}.json" for part in PARTS}
    for names, problem in ((expected - set(contents), "missing"), (set(contents) - expected, "not known")):
        if names:
            raise ReportError(f"{', '.join(sorted(names))!s:.200}: {problem}; run perceiver-run selftest again")
    if set(index.members) != expected:
        raise ReportError(f"{INDEX}: expected hashes of {', '.join(sorted(expected))}")
    for name, content in contents.items():
        if (found := _sha256(content)) != index.members[name]:
            raise ReportError(
                f"{name}: expected sha256 {index.members[name]:.64}, got {found}; the report was changed or damaged"
            )
    if (whole := _index(index.members, index.tools.get(WRITER, "")).sha256) != index.sha256:
        raise ReportError(
            f"{INDEX}: expected sha256 {index.sha256:.64}, got {whole}; the report was changed or damaged"
        )


def _index(members: Mapping[str, str], release: str) -> Index:
    index = {"schema_version": REPORT_SCHEMA.version, "tools": {WRITER: release}, "members": dict(members)}
    return Index(**index, sha256=_sha256(strict_json.dumps(index, indent=None, sort_keys=True).encode()))  # type: ignore[arg-type]


def _parsed(content: bytes, where: str) -> Any:
    try:
        return strict_json.loads(content)
    except ValueError as error:
        raise ReportError(f"{where}: no valid JSON ({error}); run perceiver-run selftest again") from error


def _json(value: Any) -> bytes:
    return f"{strict_json.dumps(strict_json.without_nonfinite(value), indent=1)}\n".encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
