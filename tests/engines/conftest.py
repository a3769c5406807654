"""A bundle, a simulated Jetson, and engines built for it in simulation."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_bundles
from engines.simulation.jetson import SimulatedJetson, simulated_jetson


@pytest.fixture
def jetson() -> SimulatedJetson:
    return simulated_jetson()


@pytest.fixture
def model() -> tiny_bundles.Model:
    return tiny_bundles.full_model()


@pytest.fixture
def path(tmp_path: Path, model: tiny_bundles.Model) -> Path:
    """A bundle without engines."""
    return tiny_bundles.write(tmp_path / "bundle", model, tiny_bundles.feeds())


@pytest.fixture
def built(path: Path, jetson: SimulatedJetson) -> Path:
    """The bundle with engines for the simulated Jetson."""
    return jetson.build(path)
