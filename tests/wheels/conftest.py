"""The two wheels, and an environment to install them into."""

from __future__ import annotations

from pathlib import Path

import pytest
from environments import PIP, ROOT, Environment, call


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels by the name of their distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    call(*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT / "runtime", ROOT)
    built = {path.name.split("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}
    assert sorted(built) == ["perceiver-deploy", "perceiver-runtime"]
    return built


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "venv")
