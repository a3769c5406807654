"""A tiny bundle that has everything a pipeline can do, and fresh copies of it to damage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_bundles

from perceiver_runtime import Session, open_session


@pytest.fixture(scope="session")
def model() -> tiny_bundles.Model:
    return tiny_bundles.full_model()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, model: tiny_bundles.Model) -> Path:
    """Whole and right; not to be changed."""
    return tiny_bundles.write(tmp_path_factory.mktemp("bundles") / "tiny", model, tiny_bundles.feeds())


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.fixture
def session(bundle: Path) -> Iterator[Session]:
    with open_session(bundle, threads=1) as opened:
        yield opened
