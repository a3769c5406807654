"""A bundle's digest: any change of its manifest is refused, and everything that prints it prints the same."""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_bundles

from perceiver_runtime import BundleError, load_bundle
from perceiver_runtime.bundle import MAX_MANIFEST_BYTES, write_manifest
from perceiver_runtime.cli.main import main


def test_no_flipped_bit_of_a_manifest_is_unseen(copy: Path) -> None:
    path = copy / "manifest.json"
    whole = path.read_bytes()
    for seed in range(300):
        place, bit = random.Random(seed).randrange(len(whole)), random.Random(seed).randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with pytest.raises(BundleError):
            load_bundle(copy)


def test_other_tools_compute_it(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text()
    blank = re.sub(r'^  "digest": ".*"', '  "digest": ""', text, flags=re.MULTILINE)
    assert load_bundle(bundle).manifest.digest == hashlib.sha256(blank.encode()).hexdigest()
    assert blank.count('"digest": ""') == 1


def test_a_nested_field_of_the_same_name(copy: Path) -> None:
    manifest = load_bundle(copy).manifest
    nested = replace(manifest, source=replace(manifest.source, config={"digest": "", "a": {"digest": ""}}))
    written = write_manifest(copy, nested)
    assert load_bundle(copy).manifest == written
    assert written.digest != manifest.digest


def test_bundles_without_a_digest_have_one(copy: Path) -> None:
    tiny_bundles.change(copy, lambda m: None)
    assert load_bundle(copy).manifest.digest == hashlib.sha256((copy / "manifest.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("stated", ["0" * 64, "x", 1, None, "tiny"])
def test_a_wrong_digest(copy: Path, stated: object) -> None:
    tiny_bundles.change(copy, lambda m: m.update(digest=stated))
    with pytest.raises(BundleError, match="digest"):
        load_bundle(copy)


def test_commands_print_it(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = load_bundle(bundle).manifest.digest
    assert main(["inspect", str(bundle)]) == 0
    assert digest in capsys.readouterr().out
    assert main(["verify", str(bundle)]) == 0
    assert digest in capsys.readouterr().out
    assert main(["inspect", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == digest
    assert main(["verify", str(bundle), "--json"]) == 0
    assert {record["conditions"]["digest"] for record in json.loads(capsys.readouterr().out)} == {digest}


def test_a_large_manifest_is_refused_before_it_is_parsed(copy: Path) -> None:
    with (copy / "manifest.json").open("ab") as file:
        file.write(b" " * MAX_MANIFEST_BYTES)
    with pytest.raises(BundleError, match="expected at most 4,194,304 bytes"):
        load_bundle(copy)
