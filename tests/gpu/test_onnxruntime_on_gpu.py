"""ONNX Runtime's CUDA provider on a real GPU: skipped, visibly, where there is none. `pytest -m gpu tests/gpu`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_bundles

from perceiver_runtime.backends import open_backend
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.execution.session import open_session
from perceiver_runtime.measure.verify import verify

pytestmark = pytest.mark.gpu
BACKEND = "onnxruntime-cuda"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    try:
        open_backend(BACKEND)
    except UnavailableError as error:
        pytest.skip(str(error))
    return tiny_bundles.write(tmp_path / "bundle", tiny_bundles.full_model(), tiny_bundles.feeds(), tolerance=1e-4)


@pytest.mark.parametrize(("batch", "keys", "queries"), [(1, 7, 10), (3, 9, 8), (4, 32, 64)])
def test_values_stay_on_the_device(path: Path, batch: int, keys: int, queries: int) -> None:
    feeds = tiny_bundles.feeds(batch, keys, queries)
    expected = tiny_bundles.reference(tiny_bundles.full_model(), feeds)
    with open_session(path, BACKEND) as session:
        for name, array in session.run(feeds).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-4)


def test_the_bundle_verifies(path: Path) -> None:
    assert verify(path, BACKEND).passed
