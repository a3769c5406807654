"""SIMULATION: engines that newer versions of TensorRT run, on the full, the lean and the dispatch runtime."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny_bundles
from engines.simulation.jetson import SimulatedJetson, simulated_jetson
from engines.simulation.trt import simulated_tensorrt

from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.tensorrt import backend
from perceiver_runtime.tensorrt.builder.bundle import EngineOptions, build_engines

NAMES = {"tensorrt": "tensorrt", "tensorrt-lean": "tensorrt_lean", "tensorrt-dispatch": "tensorrt_dispatch"}


def install(monkeypatch: pytest.MonkeyPatch, jetson: SimulatedJetson, version: str) -> None:
    """All runtimes of that version, on the device of `jetson`."""

    def load(name: str) -> ModuleType:
        return simulated_tensorrt(jetson.cuda, version, name)

    monkeypatch.setattr(backend, "load_tensorrt", load)
    monkeypatch.setattr(backend, "load_cudart", lambda: jetson.cuda)


def build(path: Path, jetson: SimulatedJetson, compatible: bool) -> None:
    options = EngineOptions(device=jetson.device, version_compatible=compatible)
    build_engines(path, "jetson-orin", jetson.trt, options)


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0"])
@pytest.mark.parametrize("name", NAMES)
def test_a_version_compatible_engine_runs_on_newer_runtimes(
    path: Path, model: tiny_bundles.Model, monkeypatch: pytest.MonkeyPatch, name: str, version: str
) -> None:
    jetson, feeds = simulated_jetson(), tiny_bundles.feeds()
    build(path, jetson, compatible=True)
    install(monkeypatch, jetson, version)
    with open_session(path, name) as session:
        assert session.backend == name
        assert session.versions == {NAMES[name]: version}
        got = session.run(feeds)["answers"]
    np.testing.assert_allclose(got, tiny_bundles.reference(model, feeds)["answers"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("built", "compatible", "here"),
    [("10.3.0", False, "10.16.1.11"), ("10.16.1.11", True, "10.3.0"), ("10.3.0", True, "12.0.0")],
)
def test_no_engine_runs_on_a_runtime_that_it_is_not_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, built: str, compatible: bool, here: str
) -> None:
    jetson = simulated_jetson(built)
    build(path, jetson, compatible)
    install(monkeypatch, jetson, here)
    with pytest.raises(UnavailableError, match=f"built for TensorRT {built}, here {here}"):
        open_session(path, "tensorrt-lean")
