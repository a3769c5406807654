"""The lowest versions that are declared are those that `make test-minimum` installs, and no others."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DECLARED = re.compile(r'"([A-Za-z0-9_-]+)>=([0-9.]+)"')


def test_the_constraints_are_the_declared_bounds() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = text[text.index("dependencies = [") : text.index("gpu = [")]
    declared = {name: _padded(version) for name, version in DECLARED.findall(wanted)}
    lines = (Path(__file__).parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tried = dict(line.split("==") for line in lines if "==" in line)
    assert {name: _padded(version) for name, version in tried.items()} == declared


def _padded(version: str) -> str:
    return ".".join([*version.split("."), "0", "0"][:3])
