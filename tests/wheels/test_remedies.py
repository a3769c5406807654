"""Remedies name extras that are declared, and what is installed twice or not at all is found."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from typing import Any

import pytest
from environments import ROOT, project

from perceiver_deploy.api import doctor

EXTRA = re.compile(r"(perceiver-runtime|perceiver-deploy|\./runtime|'\.)\[([a-z,-]+)\]")
FOLDERS = {"perceiver-runtime": "runtime", "./runtime": "runtime", "perceiver-deploy": ".", "'.": "."}
TEXTS = [
    path
    for folder in ("perceiver_deploy", "exporters", "runtime", "docs", "examples")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".md")
]


def test_extras_that_are_named_are_declared() -> None:
    named = {
        (FOLDERS[name], extra, path.name)
        for path in (*TEXTS, ROOT / "README.md", ROOT / "Makefile")
        for name, extras in EXTRA.findall(path.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert {("runtime", "cpu"), ("runtime", "gpu"), (".", "cpu"), (".", "gpu")} <= {each[:2] for each in named}
    assert not [each for each in named if each[1] not in project(each[0])["optional-dependencies"]]


def _diagnose(monkeypatch: pytest.MonkeyPatch, *installed: str) -> list[doctor.Finding]:
    """What the doctor finds with these of ONNX Runtime's packages."""

    def version(name: str) -> str:
        if name.startswith("onnxruntime") and name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.30.0"

    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: find(name) if installed or name != "onnxruntime" else None
    )
    return [each for each in doctor.diagnose().findings if each.needed and not each.ok]


@pytest.mark.parametrize("installed", [(), ("onnxruntime", "onnxruntime-gpu")])
def test_one_onnxruntime_is_needed(installed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    (failed,) = _diagnose(monkeypatch, *installed)
    assert failed.name == "onnxruntime providers"
    assert "pip install 'perceiver-deploy[cpu]', or 'perceiver-deploy[gpu]'" in failed.remedy
    assert ("pip uninstall" in failed.remedy) == bool(installed)


@pytest.mark.parametrize("installed", ["onnxruntime", "onnxruntime-gpu"])
def test_either_onnxruntime_will_do(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _diagnose(monkeypatch, installed)
