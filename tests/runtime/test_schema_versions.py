"""Schema versions: this one and older ones are read, newer ones refused with the release that reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tiny_bundles

from perceiver_runtime import BundleError, load_bundle
from perceiver_runtime import bundle as loading
from perceiver_runtime.format.versions import Schema

PATH = Path("record.json")
SCHEMA = Schema(
    "record",
    3,
    "write it again",
    {
        1: lambda record: {"schema_version": 1, "name": record["title"]},
        2: lambda record: {**record, "size": 0},
    },
)


def test_older_records_pass_every_migration() -> None:
    assert SCHEMA.upgrade({"schema_version": 1, "title": "a"}, PATH) == {"schema_version": 3, "name": "a", "size": 0}
    assert SCHEMA.upgrade({"schema_version": 2, "name": "a"}, PATH) == {"schema_version": 3, "name": "a", "size": 0}


def test_the_current_record_stays_as_it_is() -> None:
    record = {"schema_version": 3, "name": "a", "size": 1}
    assert SCHEMA.upgrade(record, PATH) == record


def test_a_version_without_a_migration_is_refused() -> None:
    with pytest.raises(BundleError, match="record schema 0; this runtime reads 1 to 3; write it again"):
        SCHEMA.upgrade({"schema_version": 0}, PATH)


@pytest.mark.parametrize("version", [None, "1", 1.0, True])
def test_a_version_is_an_integer(version: object) -> None:
    with pytest.raises(BundleError, match="expected an object with an integer schema_version"):
        SCHEMA.upgrade({"schema_version": version}, PATH)


def test_a_newer_bundle_names_the_release_that_reads_it(copy: Path) -> None:
    tiny_bundles.change(copy, lambda manifest: manifest.update(schema_version=2, tools={"perceiver-deploy": "0.7.1"}))
    with pytest.raises(BundleError, match=r"schema 2; this runtime reads 1; upgrade perceiver-runtime to 0\.7\.1"):
        load_bundle(copy)


@pytest.mark.parametrize("tools", [[], {}, {"perceiver-deploy": 7}, {"perceiver-deploy": "$(reboot)"}])
def test_a_release_that_is_none_is_not_named(copy: Path, tools: object) -> None:
    tiny_bundles.change(copy, lambda manifest: manifest.update(schema_version=2, tools=tools))
    with pytest.raises(BundleError, match="upgrade perceiver-runtime, or export again"):
        load_bundle(copy)


def test_an_older_bundle_is_migrated(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of schema 1 has another name in schema 2."""
    tiny_bundles.change(copy, lambda manifest: manifest.update(origin=manifest.pop("golden_origin")))

    def rename(record: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in record.items() if k != "origin"}, "golden_origin": record["origin"]}

    schema = dataclasses.replace(loading.MANIFEST_SCHEMA, version=2, migrations={1: rename})
    monkeypatch.setattr(loading, "MANIFEST_SCHEMA", schema)
    assert load_bundle(copy).manifest.schema_version == 2


def test_retired_fields_are_ignored(copy: Path) -> None:
    expected = load_bundle(copy).manifest
    tiny_bundles.change(copy, lambda manifest: manifest.update(metrics={"accuracy": 0.5}))
    assert dataclasses.replace(load_bundle(copy).manifest, digest=expected.digest) == expected
