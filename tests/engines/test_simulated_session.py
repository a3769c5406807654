"""SIMULATION: sessions on the TensorRT backend over a simulated device. Nothing here is a GPU result."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from engines.simulation.jetson import SimulatedJetson, simulated_jetson
from engines.simulation.trt import simulated_tensorrt

from perceiver_runtime.benchmark.latency import measure
from perceiver_runtime.bundle import Bundle, load_bundle
from perceiver_runtime.cuda.device import CudaDevice
from perceiver_runtime.errors import BuildError, BundleError, CheckError, FeedError, UnavailableError
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.measure.parity import require_parity
from perceiver_runtime.measure.verify import verify
from perceiver_runtime.tensorrt import engine as engine_module
from perceiver_runtime.tensorrt.inspection import inspect_engine
from perceiver_runtime.tensorrt.sidecar import read_sidecar, write_sidecar
from perceiver_runtime.tensorrt.trial import run_plan


@pytest.mark.parametrize(("batch", "keys", "queries"), [(1, 7, 10), (1, 1, 1), (3, 9, 8), (2, 32, 13)])
def test_runs_repeats_chunks_carries_and_defaults(
    built: Path, jetson: SimulatedJetson, model: tiny_bundles.Model, batch: int, keys: int, queries: int
) -> None:
    feeds = tiny_bundles.feeds(batch, keys, queries)
    expected = tiny_bundles.reference(model, feeds)
    with jetson.open(built) as session:
        for _ in range(3):  # enqueued, then captured graphs
            results = session.run(feeds)
            for name, array in results.items():
                np.testing.assert_allclose(array, expected[name], rtol=2e-5, atol=2e-5)
    assert jetson.cuda.launches > 0


def test_gives_what_onnx_runtime_gives(built: Path, jetson: SimulatedJetson) -> None:
    feeds = tiny_bundles.feeds(2, 8, 9)
    with jetson.open(built) as session, open_session(built, "onnxruntime") as reference:
        encoded, expected = session.encode(feeds), reference.encode(feeds)
        for name in expected:
            np.testing.assert_allclose(encoded[name], expected[name], rtol=1e-6, atol=1e-6)
        queries = {"queries": feeds["queries"]}
        decoded, wanted = session.decode(encoded, queries), reference.decode(expected, queries)
        np.testing.assert_allclose(decoded["answers"], wanted["answers"], rtol=1e-6, atol=1e-6)


def test_verifies_and_measures(built: Path, jetson: SimulatedJetson) -> None:
    with jetson.open(built) as session:
        assert verify(session).passed
        report = measure(session, warmup=1, iterations=3)
    assert (report.cuda_graphs, report.transfers) == ("on", "included")
    assert report.memory.device is not None
    assert report.conditions.instructions == ("compute capability 8.7",)


def test_only_wanted_outputs_are_asked_for(built: Path, jetson: SimulatedJetson) -> None:
    with jetson.open(built) as session:
        assert set(session.run(tiny_bundles.feeds(), ["logits"])) == {"logits"}


def test_new_data_goes_through_a_captured_graph(
    built: Path, jetson: SimulatedJetson, model: tiny_bundles.Model
) -> None:
    with jetson.open(built) as session:
        for seed in range(4):
            feeds = tiny_bundles.feeds(seed=seed)
            expected = tiny_bundles.reference(model, feeds)
            np.testing.assert_allclose(session.run(feeds)["answers"], expected["answers"], rtol=2e-5, atol=2e-5)


def test_two_sizes_in_turn_and_from_two_threads(
    built: Path, jetson: SimulatedJetson, model: tiny_bundles.Model
) -> None:
    sizes = [(1, 7, 10), (3, 9, 8)]
    errors: list[BaseException] = []
    with jetson.open(built) as session:

        def work(index: int) -> None:
            feeds = tiny_bundles.feeds(*sizes[index % 2], seed=index)
            expected = tiny_bundles.reference(model, feeds)
            try:
                for _ in range(5):
                    got = session.run(feeds)["answers"]
                    np.testing.assert_allclose(got, expected["answers"], rtol=2e-5, atol=2e-5)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_all_memory_goes_back(built: Path, jetson: SimulatedJetson) -> None:
    with jetson.open(built) as session:
        session.run(tiny_bundles.feeds())
        assert jetson.cuda.heap.in_use > 0
    del session
    assert jetson.cuda.heap.live == 0


def test_buffers_are_allocated_once_per_size(built: Path, jetson: SimulatedJetson) -> None:
    with jetson.open(built) as session:
        session.run(tiny_bundles.feeds())
        live = jetson.cuda.heap.live
        for seed in range(5):
            session.run(tiny_bundles.feeds(seed=seed))
        assert jetson.cuda.heap.live == live


def test_a_full_device_is_refused(built: Path, jetson: SimulatedJetson) -> None:
    """The session recovers: it runs what fits, and everything once there is memory again."""
    with jetson.open(built) as session:
        expected = session.run(tiny_bundles.feeds())
        jetson.cuda.heap.capacity = jetson.cuda.heap.in_use + 1000
        large = tiny_bundles.feeds(4, 32, 64)
        with pytest.raises(UnavailableError, match="MemoryAllocation; use smaller batches"):
            session.run(large)
        np.testing.assert_array_equal(session.run(tiny_bundles.feeds())["logits"], expected["logits"])
        jetson.cuda.heap.capacity = 1 << 30
        assert session.run(large)


def test_a_lost_device_is_said_to_be_lost(
    built: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether CUDA says it, or TensorRT refuses to run: no answer, and no BundleError."""
    lost = "IllegalAddress; this process can't use the GPU again: restart it"
    with jetson.open(built) as session:
        session.run(tiny_bundles.feeds())
        jetson.cuda.lost = True
        for _ in range(2):
            with pytest.raises(UnavailableError, match=lost):
                session.run(tiny_bundles.feeds())
        monkeypatch.setattr(jetson.trt.IExecutionContext, "execute_async_v3", lambda *_: False)
        with pytest.raises(UnavailableError, match=lost):
            session.run(tiny_bundles.feeds(2))


def test_sizes_outside_of_the_profile_are_refused(built: Path, jetson: SimulatedJetson) -> None:
    with jetson.open(built) as session:
        with pytest.raises(FeedError, match="batch = 5"):
            session.run(tiny_bundles.feeds(5))
        with pytest.raises(FeedError, match="no profile of its engine"):
            session.run_component("block", {"latents": np.zeros((9, 5, 6), np.float32)})


def test_works_without_graphs_where_capture_fails(
    built: Path, jetson: SimulatedJetson, model: tiny_bundles.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_application: object) -> None:
        raise UnavailableError("cudaErrorStreamCaptureUnsupported")

    with jetson.open(built) as session:
        monkeypatch.setattr(engine_module.CudaDevice, "capture", lambda _device, _enqueue: refuse(None))
        feeds = tiny_bundles.feeds()
        for _ in range(2):
            got = session.run(feeds)["answers"]
    np.testing.assert_allclose(got, tiny_bundles.reference(model, feeds)["answers"], rtol=2e-5, atol=2e-5)
    assert jetson.cuda.launches == 0


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (simulated_jetson(version="10.13.3.9"), r"built for TensorRT 10\.3\.0, here 10\.13\.3\.9"),
        (simulated_jetson(capability="8.6"), r"built for compute capability 8\.7, here 8\.6"),
        (simulated_jetson(version="11.4.0"), r"built for TensorRT 10\.3\.0, here 11\.4\.0"),
    ],
)
def test_another_machines_engine_is_not_deserialised(
    built: Path, other: SimulatedJetson, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = other.backend()
    monkeypatch.setattr(backend, "_runtime", None)  # touching it would be an AttributeError
    bundle = load_bundle(built)
    with pytest.raises(UnavailableError, match=reason) as caught:
        backend.load(bundle, bundle.manifest.component("encoder"))
    assert "perceiver-run build" in str(caught.value)


def test_a_bundle_without_engines_is_refused_with_the_remedy(path: Path, jetson: SimulatedJetson) -> None:
    with pytest.raises(UnavailableError, match="perceiver-run build"):
        jetson.open(path)


def test_an_engine_of_an_older_graph_is_refused(built: Path, jetson: SimulatedJetson, tmp_path: Path) -> None:
    other = tiny_bundles.write(tmp_path / "other", tiny_bundles.full_model(seed=5), tiny_bundles.feeds())
    (built / "onnx/encoder.onnx").write_bytes((other / "onnx/encoder.onnx").read_bytes())
    tiny_bundles.rehash(built, "onnx/encoder.onnx")
    with pytest.raises(BundleError, match="built from graph"):
        jetson.open(built)


def test_a_damaged_engine_is_refused_before_it_is_read(built: Path, jetson: SimulatedJetson) -> None:
    plan = built / "engines/jetson-orin/encoder.plan"
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    with pytest.raises(BundleError, match="sha256"):
        jetson.open(built)


def test_a_foreign_plan_is_refused(built: Path, jetson: SimulatedJetson) -> None:
    (built / "engines/jetson-orin/encoder.plan").write_bytes(b"something else")
    tiny_bundles.rehash(built, "engines/jetson-orin/encoder.plan")
    with pytest.raises(BundleError, match="not the engine that its sidecar describes"):
        jetson.open(built)


def test_an_engine_that_contradicts_the_manifest_is_refused(built: Path, jetson: SimulatedJetson) -> None:
    def rename(manifest: dict[str, object]) -> None:
        for component in manifest["components"]:  # type: ignore[attr-defined]
            if component["name"] == "head":
                component["outputs"][0]["dtype"] = "float16"
        manifest["pipeline"]["outputs"][0]["dtype"] = "float16"

    tiny_bundles.change(built, rename)
    with pytest.raises(BundleError, match=r"logits is FLOAT.*manifest: logits: float16"):
        jetson.open(built)


def test_an_engine_with_other_outputs_is_refused(built: Path, jetson: SimulatedJetson) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        next(c for c in manifest["components"] if c["name"] == "head")["outputs"][0]["name"] = "scores"
        next(s for s in manifest["pipeline"]["steps"] if s["component"] == "head")["outputs"] = {"scores": "logits"}

    tiny_bundles.change(built, rename)
    with pytest.raises(BundleError, match="engine head: outputs logits; manifest: scores; build it again"):
        jetson.open(built)


def test_an_engine_with_a_tensor_on_the_host_is_refused(
    built: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = jetson.trt.TensorLocation.HOST
    monkeypatch.setattr(jetson.trt.ICudaEngine, "get_tensor_location", lambda _engine, _name: host)
    with pytest.raises(BundleError, match="engine encoder: x is a shape tensor on the host"):
        jetson.open(built)


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("infer_shapes", ["x"], "component encoder: the engine lacks the shapes of x; build it again"),
        ("execute_async_v3", False, r"component encoder: TensorRT refused to run it; see its log"),
    ],
)
def test_what_tensorrt_refuses_is_said(
    built: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch, method: str, answer: Any, message: str
) -> None:
    monkeypatch.setattr(jetson.trt.IExecutionContext, method, lambda *_: answer)
    with jetson.open(built) as session, pytest.raises(BundleError, match=message):
        session.run(tiny_bundles.feeds())


def test_a_plan_that_tensorrt_can_not_read_is_refused(built: Path, jetson: SimulatedJetson) -> None:
    """Though its sidecar describes it."""
    plan, sidecar = (built / f"engines/jetson-orin/encoder.{suffix}" for suffix in ("plan", "json"))
    plan.write_bytes(b"of another version")
    digest = hashlib.sha256(plan.read_bytes()).hexdigest()
    write_sidecar(sidecar, replace(read_sidecar(sidecar), engine_sha256=digest))
    for path in (plan, sidecar):
        tiny_bundles.rehash(built, path.relative_to(built).as_posix())
    with pytest.raises(BundleError, match=r"encoder\.plan: TensorRT can't read it: magicTag != MAGIC_TAG"):
        jetson.open(built)


def test_a_plan_that_was_just_built_and_can_not_be_opened_is_an_error(built: Path, jetson: SimulatedJetson) -> None:
    with load_bundle(built) as bundle:
        entry = bundle.manifest.component("head")
    with pytest.raises(BuildError, match="component head: TensorRT can't open what it built: magicTag"):
        run_plan(jetson.trt, CudaDevice(jetson.cuda), b"no plan", entry, {})
    with pytest.raises(BuildError, match="component head: TensorRT built an engine that it can't open: magicTag"):
        inspect_engine(jetson.trt, b"no plan", "head")


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_each_size_runs_in_its_profile(
    path: Path, jetson: SimulatedJetson, model: tiny_bundles.Model, batch: int
) -> None:
    def split(manifest: dict[str, Any]) -> None:
        (both,) = manifest["profiles"]
        few, many = ({"min": low, "opt": low, "max": high} for low, high in ((1, 2), (3, 4)))
        manifest["profiles"] = [
            {"name": name, "dimensions": {**both["dimensions"], "batch": sizes}}
            for name, sizes in (("few", few), ("many", many))
        ]

    tiny_bundles.change(path, split)
    feeds = tiny_bundles.feeds(batch)
    with jetson.open(jetson.build(path)) as session:
        results = session.run(feeds)
    expected = tiny_bundles.reference(model, feeds)
    for name, array in results.items():
        np.testing.assert_allclose(array, expected[name], rtol=2e-5, atol=2e-5)


def test_contexts_that_capture_graphs_themselves(
    path: Path, model: tiny_bundles.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of TensorRT-RTX: nothing is captured from the stream."""
    jetson = simulated_jetson()
    trt = simulated_tensorrt(jetson.cuda, "1.2.0.54", "tensorrt_rtx")
    made: list[RuntimeConfig] = []
    create = trt.ICudaEngine.create_execution_context

    def context(engine: Any, config: RuntimeConfig) -> Any:
        made.append(config)
        return create(engine, config.strategy)

    monkeypatch.setattr(trt, "CudaGraphStrategy", CudaGraphStrategy, raising=False)
    monkeypatch.setattr(trt.ICudaEngine, "create_runtime_config", lambda _: RuntimeConfig(), raising=False)
    monkeypatch.setattr(trt.ICudaEngine, "create_execution_context", context)
    rtx = replace(jetson, trt=trt)
    feeds = tiny_bundles.feeds()
    with rtx.open(rtx.build(path, "rtx")) as session:
        for _ in range(2):
            got = session.run(feeds)["answers"]
        np.testing.assert_allclose(got, tiny_bundles.reference(model, feeds)["answers"], rtol=2e-5, atol=2e-5)
        assert measure(session, warmup=0, iterations=1).cuda_graphs == "on"
    assert jetson.cuda.launches == 0
    assert {config.cuda_graph_strategy for config in made} == {CudaGraphStrategy.WHOLE_GRAPH_CAPTURE}


class CudaGraphStrategy(Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class RuntimeConfig:
    cuda_graph_strategy = CudaGraphStrategy.DISABLED

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy


def test_a_self_test_finds_a_flipped_bit_of_an_engine(
    built: Path, jetson: SimulatedJetson, model: tiny_bundles.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bit that flips in memory, after the file was hashed."""
    read, weight = Bundle.read, model.part("encoder").weights["e"].tobytes()

    def flipped(bundle: Bundle, *arguments: Any, **options: Any) -> bytes:
        content = read(bundle, *arguments, **options)
        place = content.find(weight) + 3
        return content if place < 3 else content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]

    with jetson.open(built) as session:
        require_parity(session)
    monkeypatch.setattr(Bundle, "read", flipped)
    with jetson.open(built) as session, pytest.raises(CheckError, match=r"self-test: \w+: \w+: expected an error"):
        require_parity(session)
