"""What is installed is pinned with its hash, listed in an SBOM, and built by pinned actions with few permissions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from environments import ROOT


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sbom")
    command = [sys.executable, str(ROOT / "tools/sbom.py"), "--out", "sbom.json", "--licences", "licences.md"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return folder


def test_the_sbom_is_valid_and_whole(written: Path) -> None:
    text = (written / "sbom.json").read_text()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    bom = json.loads(text)
    components = {each["bom-ref"]: each for each in bom["components"]}
    assert {"numpy", "torch", "onnx", "onnxruntime", "cryptography", "perceiver-runtime"} <= {
        each["name"] for each in components.values()
    }
    assert all(each["licenses"] and each["version"] and each["purl"] for each in components.values())
    assert bom["metadata"]["component"]["name"] == "perceiver-deploy"
    known = {*components, bom["metadata"]["component"]["bom-ref"]}
    assert {each["ref"] for each in bom["dependencies"]} == known
    assert {inner for each in bom["dependencies"] for inner in each.get("dependsOn", ())} <= known


def test_every_licence_is_stated_and_on_the_page(written: Path) -> None:
    made, page = ((folder / "licences.md").read_text(encoding="utf-8") for folder in (written, ROOT / "docs"))
    assert "not stated" not in made
    names = [set(re.findall(r"^\| ([\w-]+) \|", text, flags=re.MULTILINE)) for text in (made, page)]
    assert names[0] - {"setuptools"} <= names[1], "python tools/sbom.py --licences docs/licences.md"


def test_all_pins_have_hashes() -> None:
    pins = re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    text = (ROOT / "requirements-hashes.txt").read_text()
    blocks = re.findall(r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, flags=re.MULTILINE)

    def named(found: list[tuple[str, ...]]) -> dict[str, str]:
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version, *_ in found}

    expected = named(pins)
    assert expected.pop("torch")
    assert named(blocks) == expected, "make hashes"
    assert len(blocks) == len(re.findall("==", text))


def test_actions_are_pinned_and_may_only_read() -> None:
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        text = path.read_text()
        used = re.findall(r"uses: *(\S+)", text)
        assert used
        assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each) for each in used), used
        assert "\npermissions:\n  contents: read\n\n" in text
        assert text.count("persist-credentials: false") == text.count("actions/checkout@")
