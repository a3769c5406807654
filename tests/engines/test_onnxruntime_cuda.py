"""SIMULATION: ONNX Runtime on a device; what it does that TensorRT does not. Arrays: `test_device_arrays`."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_bundles
from engines.simulation.cudart import SimulatedCuda, cudaError_t
from engines.simulation.foreign import ForeignStream, Tensor
from engines.simulation.ort import SimulatedOrt, SimulatedSession, simulated_ort

from perceiver_runtime import BundleError, Session, UnavailableError, UsageError, open_session
from perceiver_runtime.benchmark.latency import measure
from perceiver_runtime.cuda import library
from perceiver_runtime.cuda import onnxruntime as backend
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.measure.verify import verify

SIZES = [(1, 7, 10), (3, 9, 8), (2, 32, 13)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimulatedOrt:
    return simulated_ort(monkeypatch)


@pytest.fixture
def session(path: Path, gpu: SimulatedOrt) -> Iterator[Session]:
    with gpu.open(path) as opened:
        yield opened


def check(got: Any, model: tiny_bundles.Model, feeds: tiny_bundles.Arrays) -> None:
    expected = tiny_bundles.reference(model, feeds)
    for name, array in got.items():
        np.testing.assert_allclose(array, expected[name], rtol=2e-5, atol=2e-5)


def test_sizes_alternate_over_captured_graphs(session: Session, gpu: SimulatedOrt, model: tiny_bundles.Model) -> None:
    assert session.device.cuda_graphs() == "off"  # type: ignore[attr-defined]
    captured = 0
    for seed in range(4):
        for size in SIZES:
            feeds = tiny_bundles.feeds(*size, seed)
            check(session.run(feeds), model, feeds)
        captured = captured if seed else gpu.captured
        assert gpu.captured == captured > len(SIZES)
    report = measure(session, warmup=0, iterations=1)
    assert (report.cuda_graphs, report.transfers) == ("on", "included")
    assert verify(session).passed


def test_encode_and_decode_and_components(session: Session, model: tiny_bundles.Model) -> None:
    feeds = tiny_bundles.feeds(2, 9, 13)
    encoded = session.encode(feeds)
    expected = tiny_bundles.reference(model, feeds)
    for _ in range(3):
        got = session.decode(encoded, {"queries": feeds["queries"]})["answers"]
        np.testing.assert_allclose(got, expected["answers"], rtol=2e-5, atol=2e-5)
    head = session.run_component("head", {"latents": np.ones((1, 5, 6), np.float32)})
    np.testing.assert_allclose(head["logits"], np.ones((1, 5, 6)) @ model.part("head").weights["a"], rtol=1e-5)


def test_threads_take_turns(session: Session, gpu: SimulatedOrt, model: tiny_bundles.Model) -> None:
    """Runs on NumPy arrays beside two callers, while graphs are captured; ONNX Runtime sees two threads.

    The callers' arrays are made before: while a graph is captured, CUDA refuses allocations of other libraries.
    """
    cases = [tiny_bundles.feeds(*SIZES[seed % 3], seed) for seed in range(12)]
    streams = [ForeignStream(gpu.cuda) for _ in range(2)]
    arrays = {s: [{name: Tensor(s, a) for name, a in feeds.items()} for feeds in cases] for s in streams}

    def call(stream: ForeignStream) -> None:
        with session.caller(stream) as caller:
            for feeds, given in zip(cases, arrays[stream], strict=True):
                results = caller.run(given)
                check({name: array.numpy() for name, array in results.items()}, model, feeds)

    session.run(cases[0])
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, stream) for stream in streams]
        for got, feeds in zip(pool.map(session.run, cases), cases, strict=True):
            check(got, model, feeds)
        for each in calls:
            each.result()
    check(session.run(cases[0]), model, cases[0])
    assert len({thread for each in gpu.sessions for thread, _ in each.graphs}) == 2
    assert gpu.cuda.order.concurrent() == set()


def test_an_interrupted_caller_waits_for_its_run() -> None:
    places, begun, go, done = backend.Places(), threading.Event(), threading.Event(), []

    def run(place: int) -> None:
        begun.set()
        go.wait()
        done.append(place)
        raise KeyboardInterrupt

    places.call(done.append)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(places.call, run)
        begun.wait()
        go.set()
        with pytest.raises(KeyboardInterrupt):
            waiting.result()
    assert done == [0, 1]


def test_callers_and_priorities(path: Path, gpu: SimulatedOrt) -> None:
    with gpu.open(path, callers=None) as session:
        assert session.concurrency == 1
        with session.caller(), pytest.raises(UsageError, match=r"callers: 1 are open.*callers=2"):
            session.caller()
        with pytest.raises(UsageError, match=r"priority='high': expected a TensorRT backend.*got onnxruntime-cuda"):
            session.caller(priority="high")
        assert session.caller(priority="normal")
    with pytest.raises(UsageError, match="priority='high': expected a TensorRT backend"):
        gpu.open(path, priority="high")
    with (
        gpu.open(path, device_memory=100) as session,
        pytest.raises(UnavailableError, match="device memory: expected at most 100 bytes"),
    ):
        session.run(tiny_bundles.feeds())


def test_without_graphs(
    path: Path, gpu: SimulatedOrt, model: tiny_bundles.Model, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that ONNX Runtime refuses to open with graphs, for it has nodes on the processor."""
    gpu.foreign = True
    feeds = tiny_bundles.feeds(2)
    with caplog.at_level(logging.INFO), gpu.open(path) as session:
        assert "component encoder runs without CUDA graphs" in caplog.text
        assert "can't be mapped" not in caplog.text
        for _ in range(3):
            check(session.run(feeds), model, feeds)
        assert session.device.cuda_graphs() == "off"  # type: ignore[attr-defined]
    assert gpu.captured == 0


def test_a_component_captures_so_many(
    path: Path,
    gpu: SimulatedOrt,
    model: tiny_bundles.Model,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(backend, "MAX_GRAPHS", 3)
    with gpu.open(path) as session:
        for batch in (1, 2, 3, 4, 1, 4):
            feeds = tiny_bundles.feeds(batch, 3, 4)
            check(session.run(feeds), model, feeds)
        assert session.device.cuda_graphs() == "partly"  # type: ignore[attr-defined]
    assert max(len(each.graphs) for each in gpu.sessions) == 3
    assert caplog.text.count("component encoder has 3 CUDA graphs, as many as it may capture") == 1


def test_a_capture_that_fails_is_run_again(
    session: Session, gpu: SimulatedOrt, model: tiny_bundles.Model, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as while another library allocates memory: the stream leaves the capture."""
    gpu.failing_captures = True
    feeds = tiny_bundles.feeds(2)
    for _ in range(2):
        check(session.run(feeds), model, feeds)
    assert "component encoder runs without a CUDA graph" in caplog.text
    assert session.device.cuda_graphs() == "off"  # type: ignore[attr-defined]
    gpu.failing_captures = False
    other = tiny_bundles.feeds(3)
    check(session.run(other), model, other)
    assert session.device.cuda_graphs() == "partly"  # type: ignore[attr-defined]


def test_a_component_that_cannot_be_captured_is_tried_three_times(
    session: Session, gpu: SimulatedOrt, model: tiny_bundles.Model, caplog: pytest.LogCaptureFixture
) -> None:
    """Its graph copies from the host, say: each set of buffers would try again, and ONNX Runtime print errors."""
    gpu.failing_captures = True
    for size in range(1, 5):
        feeds = tiny_bundles.feeds(size)
        check(session.run(feeds), model, feeds)
    said = [record.getMessage() for record in caplog.records if "component encoder " in record.getMessage()]
    assert len(said) == backend.MAX_FAILED
    assert all("runs without a CUDA graph on these buffers" in message and len(message) < 300 for message in said)


def test_a_failed_run_leaves_the_caller_usable(session: Session, gpu: SimulatedOrt, model: tiny_bundles.Model) -> None:
    feeds = tiny_bundles.feeds()
    with session.caller() as caller:
        for failing in (True, False, True, False):
            gpu.failing = failing
            if failing:
                with pytest.raises(BundleError, match="component encoder: onnxruntime failed: Non-zero status code"):
                    caller.run(feeds)
            else:
                check({name: array.numpy() for name, array in caller.run(feeds).items()}, model, feeds)


def test_a_lost_device_is_said(session: Session, gpu: SimulatedOrt) -> None:
    session.run(tiny_bundles.feeds())
    gpu.failing = gpu.cuda.lost = True
    with pytest.raises(UnavailableError, match="IllegalAddress; this process can't use the GPU again"):
        session.run(tiny_bundles.feeds())
    gpu.cuda.lost = False


def test_memory_goes_back(path: Path, gpu: SimulatedOrt) -> None:
    session = gpu.open(path)
    session.run(tiny_bundles.feeds())
    session.close()
    del session
    gpu.sessions.clear()
    gc.collect()
    assert gpu.cuda.heap.live == 0


def test_open_sessions_are_released_at_exit(path: Path, gpu: SimulatedOrt) -> None:
    session, feeds = gpu.open(path), tiny_bundles.feeds()
    caller = session.caller()
    caller.run(feeds)
    session.run(feeds)
    released = [weakref.ref(each) for each in session._executables.values()]
    session._lanes.release_all()  # as for each session
    gc.collect()
    assert not [each for each in released if each() is not None]
    with pytest.raises(UsageError, match="closed"):
        caller.run(feeds)


def test_sessions_go_before_what_they_run_on_at_exit() -> None:
    """Streams and memory are released after them, or not at all."""
    code = """
from perceiver_runtime.cuda.memory import Handle
from perceiver_runtime.execution import lanes
class Open:
    streamed = True
    def release_all(self): print("sessions", flush=True)
kept, opened = Handle(1, lambda _: print("stream", flush=True)), Open()
lanes._OPEN.add(opened)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "sessions"


def test_an_answer_given_as_out_is_complete_when_it_was_written_again(
    session: Session, gpu: SimulatedOrt, model: tiny_bundles.Model
) -> None:
    """Its event is that of the last run that wrote it."""
    stream = ForeignStream(gpu.cuda)
    with session.caller(stream) as caller:
        first, second = tiny_bundles.feeds(2), tiny_bundles.feeds(2, seed=5)
        given = {name: Tensor(stream, array) for name, array in second.items()}
        results = caller.run({name: Tensor(stream, array) for name, array in first.items()})
        before = results["logits"].ready
        assert caller.run(given, out=results)["logits"] is results["logits"]
        assert results["logits"].ready is not before
        check({name: array.numpy() for name, array in results.items()}, model, second)


def test_a_provider_that_is_listed_and_does_not_start(
    gpu: SimulatedOrt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its libraries are missing: said without a word on stdout, where `--json` prints."""
    monkeypatch.setattr(library.importlib, "import_module", lambda _: SimulatedCuda())
    monkeypatch.setattr(backend.ort, "preload_dlls", lambda: print("Failed to load libcudnn"), raising=False)
    monkeypatch.setattr(SimulatedSession, "get_providers", lambda _: ["CPUExecutionProvider"])
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider did not start, got CPUExecutionProvider"):
        backend.open_backend("onnxruntime-cuda", None)
    assert capsys.readouterr().out == ""


def test_the_graph_that_a_provider_is_started_with() -> None:
    model = onnx.load_from_string(backend.IDENTITY)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


def test_a_graph_that_finds_no_memory(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 1073741824")

    feeds = tiny_bundles.feeds(3)
    monkeypatch.setattr(SimulatedSession, "run_with_iobinding", fail)
    with pytest.raises(UnavailableError, match=r"component encoder: device memory: .* use smaller batches"):
        session.run(feeds)


def test_what_is_missing(path: Path, gpu: SimulatedOrt, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimulatedCuda()
    monkeypatch.setattr(library.importlib, "import_module", lambda _: cuda)
    assert isinstance(backend.open_backend("onnxruntime-cuda", None).device, CudaDevice)
    cuda.cudaGetDeviceCount = lambda: (cudaError_t.cudaSuccess, 0)
    with pytest.raises(UnavailableError, match="expected an NVIDIA GPU"):
        backend.open_backend("onnxruntime-cuda", None)
    monkeypatch.undo()
    simulated_ort(monkeypatch)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(UnavailableError, match=r"cuda-bindings is not installed.*perceiver-runtime\[gpu\]"):
        open_session(path, "onnxruntime-cuda")
