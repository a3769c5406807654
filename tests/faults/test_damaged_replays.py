"""A replay's directory may hold anything: it is refused as such, or run."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from perceiver_exporters.diagnose.bisection.replay import (
    EXPECTED,
    INPUTS,
    MODEL,
    RECORD,
    Replay,
    run_replay,
    write_replay,
)
from perceiver_runtime.errors import BundleError, PerceiverError
from perceiver_runtime.measure.compare import Bound


@pytest.fixture
def replay(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "part",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    record = Replay(str(tmp_path / "bundle"), "part", "auto", {"y": Bound(1e-6)}, node="n")
    x = np.float32([1, 2])  # type: ignore[arg-type]
    write_replay(tmp_path / "replay", record, {"x": x}, {"y": -x}, model)  # type: ignore[dict-item]
    return tmp_path / "replay"


@pytest.mark.parametrize("name", [RECORD, MODEL, INPUTS, EXPECTED])
def test_damaged_files(replay: Path, name: str) -> None:
    assert all(report.passed for report in run_replay(replay))
    whole = (replay / name).read_bytes()
    for seed in range(60):
        chance = random.Random(seed)
        place = chance.randrange(len(whole))
        (replay / name).write_bytes(whole[:place] + chance.randbytes(chance.randrange(3)) + whole[place + 1 :])
        try:
            run_replay(replay)
        except PerceiverError as error:
            assert str(error)  # noqa: PT017 - success is right too


def test_arrays_that_nothing_gives_or_bounds(replay: Path) -> None:
    text = (replay / RECORD).read_text()
    (replay / RECORD).write_text(text.replace('"y"', '"z"'))
    with pytest.raises(BundleError, match="nothing gives y, or nothing bounds it"):
        run_replay(replay)
    (replay / RECORD).write_text(text)
    onnx.save(onnx.ModelProto(), replay / MODEL)
    with pytest.raises(BundleError, match="can't be run"):
        run_replay(replay)
