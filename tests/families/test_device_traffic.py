"""What goes between the host and a device that keeps its values: pieces of the feeds, and no whole value for a piece.

The device is simulated, with the bytes of its copies counted, and ONNX Runtime on it as `onnxruntime-cuda` uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines.simulation.cudart import SimulatedCuda
from engines.simulation.foreign import ForeignStream, Tensor
from engines.simulation.ort import simulated_ort
from factories.families import SMALL

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.export import export_bundle
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.execution.opening import open_session

KINDS = ("up", "down", "within")


class Counted(SimulatedCuda):
    """Bytes that are copied to the device, from it and on it."""

    def __init__(self) -> None:
        super().__init__()
        self.copied = dict.fromkeys(KINDS, 0)

    def cudaMemcpy2DAsync(self, *arguments: Any) -> tuple[Any, ...]:  # noqa: N802
        *_, width, height, kind, _stream = arguments
        self.copied[KINDS[int(kind) - 1]] += width * height
        return super().cudaMemcpy2DAsync(*arguments)


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
    cuda = Counted()
    with simulated_ort(monkeypatch, cuda).open(path) as session:
        got = session.run(feeds)
        counted = dict(cuda.copied)
        stream = ForeignStream(cuda)
        arrays = {spec.name: Tensor(stream, feeds[spec.name]) for spec in session.inputs}
        with session.caller(stream) as caller:
            before = cuda.host_copies
            results = caller.run(arrays)
            assert cuda.host_copies == before
            for name, array in expected.items():
                np.testing.assert_array_equal(got[name], array)
                np.testing.assert_array_equal(results[name].numpy(), array)
    read = sum(feeds[s.name].nbytes for s in session.inputs)
    # Flow reads its frames twice, for the tokens and for the queries; one piece more is where its state begins.
    reads = 2 + 3 / config.height if family == "optical-flow" else 1
    assert counted["up"] == pytest.approx(reads * read)
    assert counted["down"] == sum(array.nbytes for array in got.values())


def test_views_with_gaps_are_copied_alone() -> None:
    cuda = Counted()
    device = CudaDevice(cuda)
    whole = device.allocate((2, 4, 3), "float32")
    device.upload(np.zeros((2, 2, 3), np.float32), device.view(whole, 1, 1, 3))
    device.copy(device.view(whole, 1, 1, 3), device.allocate((2, 2, 3), "float32"))
    assert cuda.copied == {"up": 48, "down": 0, "within": 48}
