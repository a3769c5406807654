"""The lowest versions that are declared are those that `make test-minimum` installs, and no others."""

from __future__ import annotations

from pathlib import Path

from environments import project


def test_the_constraints_are_the_declared_bounds() -> None:
    table = project()
    wanted = (*table["dependencies"], *table["optional-dependencies"]["cpu"])
    declared = {name: _padded(version) for name, version in (each.split(">=") for each in wanted if ">=" in each)}
    lines = (Path(__file__).parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tried = dict(line.split("==") for line in lines if "==" in line)
    assert {name: _padded(version) for name, version in tried.items()} == declared


def _padded(version: str) -> str:
    return ".".join([*version.split("."), "0", "0"][:3])
