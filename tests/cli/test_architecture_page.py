"""docs/architecture.md: every path, module, class and function in code font exists; its stages are the exporter's."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from perceiver_exporters.exporter import STAGES, Exporter

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "perceiver_deploy": ROOT / "perceiver_deploy",
    "perceiver_exporters": ROOT / "exporters" / "perceiver_exporters",
    "perceiver_runtime": ROOT / "runtime" / "perceiver_runtime",
}
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SOURCES = "\n".join(
    path.read_text(encoding="utf-8") for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))
)
BUNDLE_FILES = ("onnx/encoder.onnx", "config.json")


def _tokens(text: str) -> list[str]:
    """The names in code font outside of blocks."""
    return sorted(set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))) - set(BUNDLE_FILES))


def _section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def _is_path(token: str) -> bool:
    return " " not in token and ("/" in token or token.endswith(".py"))


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_the_tables_name_what_is_in_the_package(package):
    paths = [token for token in _tokens(_section(package)) if _is_path(token)]
    assert paths
    assert not [path for path in paths if not (PACKAGES[package] / path).exists()]


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_folder_of_a_package_is_in_its_table(package):
    named = {token.split("/")[0] for token in _tokens(_section(package)) if "/" in token}
    folders = {path.parent.name for path in PACKAGES[package].glob("*/__init__.py")}
    assert not folders - named


@pytest.mark.parametrize("token", _tokens(PAGE))
def test_names_exist(token):
    if _is_path(token):
        places = [ROOT, ROOT / "exporters", ROOT / "runtime", *PACKAGES.values()]
        assert any((place / token).exists() for place in places)
    elif token.startswith("perceiver_") and "." in token:
        module, _, name = token.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
    elif re.fullmatch(r"[A-Z]\w+(\.\w+)?", token):
        owner, _, member = token.partition(".")
        assert re.search(rf"^(class {owner}\b|{owner}\b.* = )", SOURCES, flags=re.MULTILINE)
        assert not member or re.search(rf"^    def {member}\(", SOURCES, flags=re.MULTILINE)
    else:
        assert all(word in SOURCES or (ROOT / word).exists() for word in re.findall(r"[a-z_][\w-]+", token))


def test_the_stages_are_those_of_the_exporter():
    rows = re.findall(r"^\| `(\w+)` \| `Exporter\.(\w+)` \| (.*) \|$", PAGE, flags=re.MULTILINE)
    assert [(name, "repeated by" in text) for name, _, text in rows] == [(s.name, s.repeated) for s in STAGES]
    assert all(name == method and callable(getattr(Exporter, method)) for name, method, _ in rows)
