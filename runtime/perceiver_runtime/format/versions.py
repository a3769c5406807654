"""Schema versions of the JSON records of a bundle: older records are migrated, newer ones are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perceiver_runtime.errors import BundleError

Record = dict[str, Any]
Migration = Callable[[Record], Record]
WRITER = "perceiver-deploy"
"""Key of a manifest's `tools` with the release that wrote the bundle; perceiver-runtime has the same version."""
_RELEASE = re.compile(r"\d+(\.\d+){0,3}[a-z0-9.]{0,12}", re.ASCII)


@dataclass(frozen=True)
class Schema:
    """The schema of one kind of record.

    `version` is what this runtime writes. `migrations` has for each older version that it reads the function that
    turns a record of that version into one of the next. `retired` are optional fields that are dropped when read.
    `remedy` says how to make the record again.
    """

    name: str
    version: int
    remedy: str
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    retired: frozenset[str] = frozenset()

    def upgrade(self, record: Any, path: Path) -> Record:
        """Migrate a parsed record to the current version.

        Args:
            record: Parsed JSON.
            path: File it was read from, for messages.

        Returns:
            The record in the current version, still to be decoded.

        Raises:
            BundleError: It is no object with an integer `schema_version`, or of a version that this runtime can't read.
        """
        version = record.get("schema_version") if isinstance(record, dict) else None
        if type(version) is not int:
            raise BundleError(f"{path}: expected an object with an integer schema_version, got {version!r:.40}")
        if version > self.version:
            raise BundleError(
                f"{path}: {self.name} schema {version}; this runtime reads {self._read}; "
                f"upgrade perceiver-runtime{_release(record)}, or {self.remedy}"
            )
        for older in range(version, self.version):
            if older not in self.migrations:
                raise BundleError(
                    f"{path}: {self.name} schema {version}; this runtime reads {self._read}; {self.remedy}"
                )
            record = {**self.migrations[older](record), "schema_version": older + 1}
        return {name: value for name, value in record.items() if name not in self.retired}

    @property
    def _read(self) -> str:
        oldest = min(self.migrations, default=self.version)
        return f"{self.version}" if oldest == self.version else f"{oldest} to {self.version}"


def _release(record: Record) -> str:
    """The release that wrote a record, where it says so: that one reads it."""
    tools = record.get("tools")
    release = tools.get(WRITER) if isinstance(tools, dict) else None
    known = isinstance(release, str) and _RELEASE.fullmatch(release)
    return f" to {release} or newer" if known else ""
