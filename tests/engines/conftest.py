"""A bundle, a simulated Jetson, and engines built for it in simulation."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_bundles
from engines.simulation.jetson import SimulatedJetson, simulated_jetson
from engines.simulation.ort import SimulatedOrt, simulated_ort


@pytest.fixture
def jetson() -> SimulatedJetson:
    return simulated_jetson()


@pytest.fixture(params=["tensorrt", "onnxruntime-cuda"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimulatedJetson | SimulatedOrt:
    """A device with either backend that keeps arrays there."""
    return simulated_jetson() if request.param == "tensorrt" else simulated_ort(monkeypatch)


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
