"""SIMULATION: arrays of other libraries on the device in and out, without a copy through the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from engines.simulation.cudart import SimulatedCuda
from engines.simulation.foreign import ForeignStream, Interfaced, Tensor
from engines.simulation.heap import SimulationError
from engines.simulation.jetson import SimulatedJetson

from perceiver_runtime import FeedError, Session, UnavailableError, UsageError, open_session
from perceiver_runtime.cuda import dlpack
from perceiver_runtime.cuda.arrays import stream_handle
from perceiver_runtime.tensorrt.arrays import DeviceArray
from perceiver_runtime.tensors import Array

KINDS = (Tensor, Interfaced)


@pytest.fixture
def jetson(either: SimulatedJetson) -> SimulatedJetson:
    """Each test runs on both backends."""
    return either


@pytest.fixture
def session(built: Path, jetson: SimulatedJetson) -> Iterator[Session]:
    with jetson.open(built) as opened:
        yield opened


@pytest.fixture
def stream(jetson: SimulatedJetson) -> ForeignStream:
    return ForeignStream(jetson.cuda)


def check(got: Array, expected: Array) -> None:
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("batch", "keys", "queries"), [(1, 7, 10), (3, 9, 8)])
def test_no_copy_through_the_host(
    session: Session,
    jetson: SimulatedJetson,
    stream: ForeignStream,
    model: tiny_bundles.Model,
    kind: Any,
    given: bool,
    batch: int,
    keys: int,
    queries: int,
) -> None:
    """Repeat, chunks, carry and a default, into arrays of the caller and into new ones, with its stream and without."""
    with session.caller(stream if given else None) as caller:
        arrays = {n: kind(stream, a) for n, a in tiny_bundles.feeds(batch, keys, queries).items()}
        caller.run(arrays)  # the default mask is uploaded once
        before = jetson.cuda.host_copies
        for seed in range(4):  # enqueued, then captured graphs
            feeds = tiny_bundles.feeds(batch, keys, queries, seed)
            expected = tiny_bundles.reference(model, feeds)
            for name, array in feeds.items():
                arrays[name].write(array)
            out = {"answers": kind(stream, np.zeros((batch, queries, 5), np.float32))}
            results = caller.run(arrays, out=out)
            assert results["answers"] is out["answers"]
            assert jetson.cuda.host_copies == before
            check(out["answers"].read(), expected["answers"])
            check(results["scaled_keys"].numpy(), expected["scaled_keys"])
            before = jetson.cuda.host_copies


def test_a_default_that_is_read_in_chunks_is_copied_once(
    path: Path, jetson: SimulatedJetson, stream: ForeignStream
) -> None:
    """Keys beside which a second input of the same length may be omitted."""

    def omit(manifest: dict[str, Any]) -> None:
        pipeline = manifest["pipeline"]
        queries = next(spec for spec in pipeline["inputs"] if spec["name"] == "queries")
        queries["shape"][1] = "keys"
        next(spec for spec in pipeline["outputs"] if spec["name"] == "answers")["shape"][1] = "keys"
        pipeline["defaults"]["queries"] = 0.5

    feeds = {name: array for name, array in tiny_bundles.feeds(2, 9).items() if name != "queries"}
    jetson.build(tiny_bundles.change(path, omit))
    with jetson.open(path) as session, session.caller(stream) as caller:
        expected = session.run({**feeds, "queries": np.full((2, 9, 4), 0.5, np.float32)})["answers"]
        arrays = {name: Tensor(stream, array) for name, array in feeds.items()}
        caller.run(arrays)
        before = jetson.cuda.host_copies
        answers = caller.run(arrays)["answers"]
        assert jetson.cuda.host_copies == before
        np.testing.assert_array_equal(answers.numpy(), expected)


def test_encode_once_decode_many(session: Session, jetson: SimulatedJetson, stream: ForeignStream) -> None:
    feeds = tiny_bundles.feeds(2, 9, 13)
    wanted = session.decode(session.encode(feeds), {"queries": feeds["queries"]})
    arrays = {name: Tensor(stream, array) for name, array in feeds.items()}
    second = ForeignStream(jetson.cuda)
    queries = {"queries": Tensor(second, feeds["queries"])}
    with session.caller(stream) as one, session.caller(second) as other:
        before = jetson.cuda.host_copies
        encoded = one.encode(arrays)
        decoded = [other.decode(encoded, queries) for _ in range(3)]
        assert jetson.cuda.host_copies == before + 1  # the default mask
        for results in decoded:
            np.testing.assert_array_equal(results["answers"].numpy(), wanted["answers"])


def test_host_and_device_arrays_together(session: Session, stream: ForeignStream, model: tiny_bundles.Model) -> None:
    feeds = tiny_bundles.feeds()
    expected = tiny_bundles.reference(model, feeds)
    logits = np.empty((1, 5, 2), np.float32)
    with session.caller(stream) as caller:
        results = caller.run({**feeds, "x": Tensor(stream, feeds["x"])}, out={"logits": logits})
        check(logits, expected["logits"])  # complete at return
        check(results["answers"].numpy(), expected["answers"])


def test_results_are_taken_by_others(session: Session, jetson: SimulatedJetson, stream: ForeignStream) -> None:
    """The consumer's stream waits; results outlive the session and go back with the last reference."""
    feeds = tiny_bundles.feeds()
    expected = session.run(feeds)["logits"]
    other = ForeignStream(jetson.cuda)
    with session.caller(stream) as caller:
        logits = caller.run(feeds)["logits"]
    session.close()
    assert isinstance(logits, DeviceArray)
    assert logits.__dlpack_device__() == (dlpack.CUDA, 0)
    assert logits.__cuda_array_interface__["stream"] == stream.cuda_stream
    assert repr(logits) == "DeviceArray(float32[1, 5, 2], device 0)"
    memory = dlpack.read(logits.__dlpack__(stream=other.cuda_stream))
    copy = Tensor(other, np.zeros_like(expected))
    jetson.cuda.cudaMemcpyAsync(copy.address, memory.address, expected.nbytes, 3, other.cuda_stream)
    np.testing.assert_array_equal(copy.read(), expected)
    with pytest.raises(BufferError, match="numpy"):
        logits.__dlpack__(copy=True)


def test_a_consumer_that_does_not_wait_is_a_race(session: Session, jetson: SimulatedJetson) -> None:
    one, other = ForeignStream(jetson.cuda), ForeignStream(jetson.cuda)
    with session.caller(one) as caller:
        results = caller.run(tiny_bundles.feeds())  # kept: to release one would wait for the device
        memory, copy = dlpack.read(results["logits"].__dlpack__(stream=-1)), Tensor(other, np.zeros(10, np.float32))
        with pytest.raises(SimulationError, match="race"):
            jetson.cuda.cudaMemcpyAsync(copy.address, memory.address, 40, 3, other.cuda_stream)


def test_faults_of_the_caller_are_noticed(session: Session, stream: ForeignStream) -> None:
    feeds = tiny_bundles.feeds()
    gone = Tensor(stream, feeds["x"])
    with session.caller(stream) as caller:
        caller.run({**feeds, "x": gone})
        stream.cuda.cudaStreamSynchronize(stream.cuda_stream)
        gone.free()
        with pytest.raises(SimulationError, match="use after free"):
            caller.run({**feeds, "x": gone})["logits"].numpy()
    short = Tensor(stream, feeds["x"][:, :4])
    short.shape = (1, 5, 4)
    with session.caller(stream) as caller, pytest.raises(SimulationError, match="out of bounds"):
        caller.run({**feeds, "x": short})["logits"].numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("numbers", "changes", "message"),
    [
        (np.zeros((1, 5, 4), np.float16), {}, r"x: expected x: float32\[batch, 5, 4\], got dtype float16"),
        (np.zeros((1, 4), np.float32), {}, "x: expected rank 3"),
        (np.zeros((1, 6, 4), np.float32), {}, "5 is fixed in this bundle"),
        (np.zeros((1, 5, 4), np.float32), {"strides": (80, 4, 20)}, r"x: expected a contiguous array.*contiguous\(\)"),
        (np.zeros((1, 5, 4), np.float32), {"offset": 2}, "x: expected memory aligned to 4 bytes"),
    ],
)
def test_unfit_arrays_are_refused(
    session: Session, stream: ForeignStream, kind: Any, numbers: Array, changes: dict[str, Any], message: str
) -> None:
    with session.caller(stream) as caller, pytest.raises(FeedError, match=message):
        caller.run({**tiny_bundles.feeds(), "x": kind(stream, numbers, **changes)})


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (Tensor, {"device": 1}, "x: expected an array on GPU 0, where the session runs, got .*Tensor on GPU 1"),
        (Tensor, {"kind": 8}, "x: expected an array on CUDA or the host, got Metal 0; copy it there"),
        (Interfaced, {"mask": 1}, "x: expected an array without a mask"),
        (Interfaced, {"address": 4096}, "x: expected memory of a GPU, got 0x1000"),
    ],
)
def test_other_devices_are_refused(
    session: Session, stream: ForeignStream, kind: Any, changes: dict[str, Any], message: str
) -> None:
    feeds = tiny_bundles.feeds()
    with session.caller(stream) as caller, pytest.raises(FeedError, match=message):
        caller.run({**feeds, "x": kind(stream, feeds["x"], **changes)})


def test_what_is_no_array_is_refused(session: Session, stream: ForeignStream) -> None:
    class Attached(Tensor):
        def __dlpack__(self, *, stream: int | None = None) -> Any:
            raise BufferError("requires grad")

    feeds = tiny_bundles.feeds()
    with session.caller(stream) as caller:
        with pytest.raises(FeedError, match=r"x: expected an array of NumPy.*got builtins\.list"):
            caller.run({**feeds, "x": [1]})
        with pytest.raises(FeedError, match=r"requires grad; give its data \(\.detach\(\)\)"):
            caller.run({**feeds, "x": Attached(stream, feeds["x"])})
        with pytest.raises(FeedError, match=r"run: input keys.* is missing"):
            caller.run({name: array for name, array in feeds.items() if name != "keys"})
        with pytest.raises(FeedError, match="no input 'y'"):
            caller.run({**feeds, "y": feeds["x"]})
        with pytest.raises(FeedError, match="run: expected arrays by name"):
            caller.run(feeds["x"])  # type: ignore[arg-type]


def test_unfit_outputs_are_refused(session: Session, stream: ForeignStream) -> None:
    feeds = tiny_bundles.feeds()
    logits, frozen = np.zeros((1, 5, 2), np.float32), np.zeros((1, 5, 2), np.float32)
    frozen.flags.writeable = False
    x = Tensor(stream, feeds["x"])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"logit": logits}, r"out: no output 'logit' is computed.*did you mean logits"),
        ({"logits": logits[:, :4]}, r"out: expected logits: float32\[1, 5, 2\], got float32\[1, 4, 2\]"),
        ({"logits": Tensor(stream, logits.astype(np.float16))}, r"got float16\[1, 5, 2\]"),
        ({"logits": frozen}, "out: expected logits to be writeable"),
        ({"logits": Interfaced(stream, logits, readonly=True)}, "out: expected logits to be writeable"),
        ({"scaled_keys": (kept := Tensor(stream, feeds["keys"])), "answers": kept}, "got float32"),
    ]
    with session.caller(stream) as caller:
        for out, message in cases:
            with pytest.raises(FeedError, match=message):
                caller.run({**feeds, "x": x}, out=out)
        keys = Tensor(stream, feeds["keys"])
        with pytest.raises(FeedError, match="got scaled_keys in the memory of keys; copy one"):
            caller.run({**feeds, "keys": keys}, out={"scaled_keys": keys})
        with pytest.raises(FeedError, match="got scaled_keys in the memory of keys"):
            caller.run(feeds, out={"scaled_keys": feeds["keys"]})


def test_values_on_the_device_are_checked_if_asked(session: Session, stream: ForeignStream) -> None:
    feeds = tiny_bundles.feeds()
    lost = Tensor(stream, np.full((1, 5, 4), np.nan, np.float32))
    with session.caller(stream) as caller:
        assert np.isnan(caller.run({**feeds, "x": lost})["logits"].numpy()).all()
    with session.caller(stream, check_values=True) as caller, pytest.raises(FeedError, match="x: expected finite"):
        caller.run({**feeds, "x": lost})


def test_mapped_memory_is_copied_by_nobody(
    session: Session, jetson: SimulatedJetson, model: tiny_bundles.Model
) -> None:
    with session.caller() as caller:
        arrays = {n: caller.mapped(a.shape, a.dtype.name) for n, a in tiny_bundles.feeds().items()}
        logits = caller.mapped((1, 5, 2), "float32")
        caller.run(arrays, out={"logits": logits})
        before = jetson.cuda.host_copies
        feeds = tiny_bundles.feeds(seed=3)
        for name, array in feeds.items():
            arrays[name].host[...] = array
        caller.run(arrays, out={"logits": logits})
        assert jetson.cuda.host_copies == before
        check(logits.host, tiny_bundles.reference(model, feeds)["logits"])
        check(logits.numpy(), logits.host)
        jetson.cuda.integrated = False
        with pytest.raises(UnavailableError, match="mapped memory: expected a board whose CPU and GPU share memory"):
            caller.mapped((1,), "float32")


def test_mapped_memory_outlives_its_session(session: Session, jetson: SimulatedJetson) -> None:
    with session.caller() as caller:
        host = caller.mapped((4,), "float32").host
    session.close()
    host[...] = 1
    jetson.cuda.heap.check(host.ctypes.data, 16, "mapped")


def test_streams() -> None:
    class Core:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 77

    class Torch:
        cuda_stream = 0

    assert [stream_handle(each) for each in (None, 5, Core(), Torch(), 0)] == [None, 5, 77, 1, 1]
    for wrong in (True, -1, "default", 1.0):
        with pytest.raises(UsageError, match="stream: expected an integer"):
            stream_handle(wrong)


def test_processor_backends_take_arrays_on_the_host(path: Path, model: tiny_bundles.Model) -> None:
    """PyTorch's arrays on the CPU are not copied; CUDA arrays are refused."""
    torch = pytest.importorskip("torch")
    feeds = tiny_bundles.feeds()
    expected = tiny_bundles.reference(model, feeds)
    logits = torch.zeros(1, 5, 2)
    with open_session(path, "onnxruntime", threads=1) as session, session.caller() as caller:
        results = caller.run({name: torch.from_numpy(array) for name, array in feeds.items()}, out={"logits": logits})
        check(logits.numpy(), expected["logits"])
        check(results["answers"], expected["answers"])
        encoded = caller.encode(feeds)
        check(caller.decode(encoded, {"queries": feeds["queries"]})["answers"], expected["answers"])
        stream = ForeignStream(SimulatedCuda())
        for kind in KINDS:
            unfit = kind(stream, feeds["x"])
            with pytest.raises(FeedError, match=r"on the host, for this backend has no device arrays, got .* on CUDA"):
                caller.run({**feeds, "x": unfit})
        with pytest.raises(FeedError, match=r"give its data"):
            caller.run({**feeds, "x": torch.zeros(1, 5, 4, requires_grad=True)})
        with pytest.raises(UsageError, match="stream: expected none"):
            session.caller(stream=5)
        with pytest.raises(UnavailableError, match="mapped memory"):
            caller.mapped((1,), "float32")
        with pytest.raises(FeedError, match=r"expected a NumPy array.*session\.caller\(\)\.run"):
            session.run({**feeds, "x": torch.zeros(1, 5, 4)})


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "uint8", "bool"])
def test_dlpack_is_what_numpy_and_torch_read_and_write(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    numbers = np.arange(6).reshape(2, 3).astype(dtype)

    class Exported:
        def __dlpack__(self, **_: object) -> Any:
            strides = dlpack.contiguous_strides(numbers.shape, numbers.itemsize)
            address = numbers.ctypes.data
            return dlpack.write(dlpack.Memory(address, numbers.shape, numbers.dtype, strides, (1, 0), numbers))

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    for taken in (np.from_dlpack(Exported()), torch.from_dlpack(Exported()).numpy()):
        np.testing.assert_array_equal(taken, numbers)
        assert taken.dtype == numbers.dtype
        assert dlpack._exported
    del taken
    Exported().__dlpack__()  # consumed by nobody
    assert not dlpack._exported
    for array in (numbers, torch.from_numpy(numbers)):
        memory = dlpack.read(array.__dlpack__())
        assert (memory.address, memory.shape, memory.dtype, memory.contiguous) == (
            numbers.ctypes.data,
            (2, 3),
            numbers.dtype,
            True,
        )
    assert not dlpack.read(torch.from_numpy(numbers).t().__dlpack__()).contiguous
    with pytest.raises(ValueError, match="DLPack type"):
        dlpack.read(torch.zeros(1, dtype=torch.bfloat16).__dlpack__())
