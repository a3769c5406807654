"""REAL engines on a real GPU: skipped, visibly, where there is none. `pytest -m gpu tests/gpu`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_bundles

from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.cuda.library import load_cudart
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.measure.verify import verify
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensorrt.builder.device_build import build_here
from perceiver_runtime.tensorrt.sidecar import read_sidecar

pytestmark = pytest.mark.gpu
BACKENDS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        load_cudart()
        load_tensorrt(BACKENDS[name])
    except UnavailableError as error:
        pytest.skip(str(error))
    return name


@pytest.fixture
def path(tmp_path: Path, backend: str) -> Path:
    path = tiny_bundles.write(tmp_path / "bundle", tiny_bundles.full_model(), tiny_bundles.feeds(), tolerance=1e-4)
    build_here(path, load_tensorrt(BACKENDS[backend]), load_cudart(), target="here")
    return path


@pytest.mark.parametrize(("batch", "keys", "queries"), [(1, 7, 10), (3, 9, 8), (4, 32, 64)])
def test_a_session_gives_what_numpy_gives(path: Path, backend: str, batch: int, keys: int, queries: int) -> None:
    feeds = tiny_bundles.feeds(batch, keys, queries)
    expected = tiny_bundles.reference(tiny_bundles.full_model(), feeds)
    with open_session(path, backend) as session:
        for _ in range(3):  # enqueued once, then CUDA graphs
            for name, array in session.run(feeds).items():
                np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-4)


def test_the_bundle_verifies(path: Path, backend: str) -> None:
    with open_session(path, backend) as session:
        assert verify(session).passed


def test_the_engines_layers_are_recorded(path: Path, backend: str) -> None:
    assert (path / "engines/here/encoder.layers.json").stat().st_size > 0
    sidecar = read_sidecar(path / "engines/here/encoder.json")
    assert sidecar.device_bytes is not None
    assert load_bundle(path).manifest.files["engines/here/encoder.plan"].size == sidecar.engine_bytes
