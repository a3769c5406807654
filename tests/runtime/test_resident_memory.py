"""Memory of ONNX Runtime's own, bound by address: what `onnxruntime-cuda` does, with the host as its device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_bundles

from perceiver_runtime.backends import onnxruntime as backend
from perceiver_runtime.backends.resident import ResidentMemory
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.execution.session import Session, open_session
from perceiver_runtime.measure.verify import verify


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Session]:
    monkeypatch.setitem(backend.RESIDENT, "onnxruntime", "cpu")
    path = tiny_bundles.write(tmp_path / "b", tiny_bundles.full_model(), tiny_bundles.feeds())
    return path, Session(load_bundle(path), backend.open_backend("onnxruntime", 1))


@pytest.mark.parametrize(("batch", "keys", "queries"), [(1, 7, 10), (1, 1, 1), (3, 9, 8), (2, 32, 13)])
def test_gives_what_host_memory_gives(
    resident: tuple[Path, Session], monkeypatch: pytest.MonkeyPatch, batch: int, keys: int, queries: int
) -> None:
    path, session = resident
    monkeypatch.undo()
    with open_session(path, "onnxruntime", threads=1) as plain:
        for seed in (1, 2):
            feeds = tiny_bundles.feeds(batch, keys, queries, seed)
            expected, got = plain.run(feeds), session.run(feeds)
            for name in expected:
                np.testing.assert_array_equal(got[name], expected[name])
        handle = session.encode(feeds)
        again = {"queries": feeds["queries"]}
        np.testing.assert_array_equal(session.decode(handle, again)["answers"], plain.decode(handle, again)["answers"])


def test_verifies(resident: tuple[Path, Session]) -> None:
    assert verify(resident[1]).passed


def test_views_share_memory_and_begin_where_their_entries_do() -> None:
    memory = ResidentMemory("cpu")
    whole, numbers = memory.allocate((2, 4, 3), "float32"), np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    memory.upload(numbers, whole)
    rows, columns = memory.view(whole, 0, 1, 2), memory.view(whole, 1, 1, 3)
    assert memory.is_contiguous(rows)
    assert rows.address == whole.address + 48
    assert not memory.is_contiguous(columns)
    part = memory.allocate((2, 2, 3), "float32")
    memory.copy(columns, part)
    got = np.empty((2, 2, 3), np.float32)
    memory.download(part, got)
    np.testing.assert_array_equal(got, numbers[:, 1:3])
    memory.upload(np.zeros((2, 2, 3)), part)
    memory.copy(part, columns)
    left = np.empty((2, 4, 3), np.float32)
    memory.download(whole, left)
    numbers[:, 1:3] = 0
    np.testing.assert_array_equal(left, numbers)
