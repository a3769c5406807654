"""What goes between the host and a device that keeps its values: pieces of the feeds, and no whole value for a piece.

The device is ONNX Runtime's memory as `onnxruntime-cuda` uses it, on the host, with its copies counted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from factories.families import SMALL

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.export import export_bundle
from perceiver_runtime.backends import onnxruntime as backend
from perceiver_runtime.backends.resident import Resident, ResidentMemory
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.execution.session import Session, open_session


class Counted(ResidentMemory):
    """Bytes that are written to the device, and bytes read from it."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.up = self.down = 0

    def upload(self, array: np.ndarray, target: Resident) -> None:
        super().upload(array, target)
        whole = np.dtype(target.dtype).itemsize * int(np.prod(target.whole.shape()))
        self.up += whole
        if not target.is_whole:
            self.down += whole

    def _read(self, buffer: Resident) -> np.ndarray:
        array = super()._read(buffer)
        self.down += int(np.prod(buffer.whole.shape())) * array.itemsize
        return array


@pytest.fixture(scope="module", params=["optical-flow", "multimodal-autoencoder"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perceiver_deploy.families.flow.TOKENS_PER_CHUNK", 3 * 24)
        family = FAMILIES[request.param]
        model = Model(request.param, family, SMALL[request.param], family.build(SMALL[request.param]).eval(), False)
        path = tmp_path_factory.mktemp("bundle") / request.param
        export_bundle(blueprint(model), path)
    return path, request.param


@pytest.mark.parametrize("batch", [1, 3])
def test_chunks_are_cut_from_the_callers_arrays(
    exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    path, family = exported
    config, random = SMALL[family], np.random.default_rng(0)
    feeds = dict(FAMILIES[family].sample(config, batch, random))
    with open_session(path, "onnxruntime", threads=1) as plain:
        expected = plain.run(feeds)
    monkeypatch.setitem(backend.RESIDENT, "onnxruntime", "cpu")
    opened = backend.open_backend("onnxruntime", 1)
    opened.device = counted = Counted()
    with Session(load_bundle(path), opened) as session:
        got = session.run(feeds)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)
    read = sum(feeds[s.name].nbytes for s in session.inputs)
    # Flow reads its frames twice, for the tokens and for the queries; one piece more is where its state begins.
    reads = 2 + 3 / config.height if family == "optical-flow" else 1
    assert counted.up == pytest.approx(reads * read)
    assert counted.down == sum(array.nbytes for array in got.values())


def test_views_with_gaps_are_counted_whole() -> None:
    """So that the test above can fail."""
    memory = Counted()
    whole = memory.allocate((2, 4, 3), "float32")
    memory.copy(memory.view(whole, 1, 1, 3), memory.allocate((2, 2, 3), "float32"))
    assert (memory.up, memory.down) == (48, 96)
