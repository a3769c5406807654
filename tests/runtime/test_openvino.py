"""The OpenVINO backend: the same verbs, sizes and errors as any other, in the precision that its name says."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_bundles
from onnx import TensorProto, helper
from tiny_bundles import Arrays, Model

from perceiver_runtime import BundleError, Session, UnavailableError, load_bundle, open_session, verify
from perceiver_runtime.backends import open_backend

openvino = pytest.importorskip("openvino")
from perceiver_runtime.backends import openvino as backend_module  # noqa: E402
from perceiver_runtime.backends.openvino import shared_core  # noqa: E402


@pytest.fixture
def session(bundle: Path) -> Any:
    with open_session(bundle, "openvino", threads=1) as opened:
        yield opened


def _check(got: Arrays, expected: Arrays) -> None:
    assert got
    for name, array in got.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_verifies(session: Session) -> None:
    report = verify(session)
    assert report.passed
    assert {r.mode for r in report.reports} == {"teacher-forced", "chained"}
    assert set(session.versions) == {"openvino"}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("keys", "queries"), [(7, 10), (1, 1), (3, 4), (32, 64)])
def test_any_size(session: Session, model: Model, batch: int, keys: int, queries: int) -> None:
    feeds = tiny_bundles.feeds(batch, keys, queries, seed=batch * keys)
    expected = tiny_bundles.reference(model, feeds)
    _check(session.run(feeds), expected)
    _check(session.run(feeds), expected)


def test_encode_once_decode_many(session: Session, model: Model) -> None:
    feeds = tiny_bundles.feeds(2)
    encoded = session.encode({name: feeds[name] for name in ("x", "keys")})
    for queries in (3, 10):
        asked = {**feeds, "queries": tiny_bundles.feeds(2, queries=queries, seed=queries)["queries"]}
        _check(session.decode(encoded, {"queries": asked["queries"]}), tiny_bundles.reference(model, asked))


def test_threads_get_their_own_answers(bundle: Path, model: Model) -> None:
    """With more runs at once than this machine has cores."""
    backend = open_backend("openvino", threads=1)
    backend.concurrency = 4
    cases = [tiny_bundles.feeds(1 + seed % 3, 7, 10, seed) for seed in range(60)]
    with Session(load_bundle(bundle), backend, 1) as session, ThreadPoolExecutor(12) as pool:
        for got, feeds in zip(pool.map(session.run, cases), cases, strict=True):
            _check(got, tiny_bundles.reference(model, feeds))


@pytest.mark.parametrize("threads", [1, 2])
def test_precision_and_threads_are_those_asked_for(bundle: Path, threads: int) -> None:
    with open_session(bundle, "openvino", threads=threads) as session:
        compiled = session._executables["block"]._compiled  # type: ignore[attr-defined]
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
        assert compiled.get_property("INFERENCE_NUM_THREADS") == threads


CLOSED_IN_ORDER = """
import gc, signal, sys
from perceiver_runtime import open_session

first, second = open_session(sys.argv[1], "openvino"), open_session(sys.argv[1], "openvino")
for session in (first, second):
    session.close()
del first, second, session
gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""


def test_signals_are_handled_after_sessions_are_closed_in_any_order(bundle: Path) -> None:
    command = [sys.executable, "-c", CLOSED_IN_ORDER, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_bfloat16_runs_or_is_refused(bundle: Path) -> None:
    """On a processor without it, OpenVINO would compute in float32 and say nothing."""
    capable = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in capable:
        with pytest.raises(UnavailableError, match="bfloat16"):
            open_session(bundle, "openvino-bf16")
        return
    with open_session(bundle, "openvino-bf16") as session:
        compiled = session._executables["block"]._compiled  # type: ignore[attr-defined]
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16


def test_a_processor_without_bfloat16_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"])
    monkeypatch.setattr(backend_module, "shared_core", lambda: plain)
    said = "backend openvino-bf16: expected a processor with bfloat16 arithmetic, this one has FP32, INT8; use openvino"
    with pytest.raises(UnavailableError, match=said):
        open_session(bundle, "openvino-bf16")


def test_another_precision_than_asked_for_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = shared_core()
    narrow = SimpleNamespace(get_property=lambda _: openvino.Type.bf16)
    other = SimpleNamespace(get_property=core.get_property, read_model=core.read_model, compile_model=lambda *_: narrow)
    monkeypatch.setattr(backend_module, "shared_core", lambda: other)
    with pytest.raises(UnavailableError, match=r"backend openvino: expected arithmetic in .*float32.*, got .*bfloat16"):
        open_session(bundle, "openvino")


def test_a_graph_that_is_none(copy: Path) -> None:
    (copy / "onnx/head.onnx").write_bytes(b"no graph")
    tiny_bundles.rehash(copy, "onnx/head.onnx")
    with pytest.raises(BundleError, match=r"head\.onnx: can't load it: no ONNX graph"):
        open_session(copy, "openvino")


def test_a_graph_that_is_another(copy: Path) -> None:
    graph = onnx.load(copy / "onnx/head.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 7
    graph.graph.initializer[0].CopyFrom(helper.make_tensor("a", TensorProto.FLOAT, [7, 2], [0.0] * 14))
    onnx.save(graph, copy / "onnx/head.onnx")
    tiny_bundles.rehash(copy, "onnx/head.onnx")
    with pytest.raises(BundleError, match=r"graph input latents: the graph has float32\[None, 5, 7\]"):
        open_session(copy, "openvino")


def test_a_graph_that_lies_about_its_output(copy: Path) -> None:
    tiny_bundles.lie_about_output(copy)
    with pytest.raises(BundleError), open_session(copy, "openvino") as session:
        session.run(tiny_bundles.feeds())
