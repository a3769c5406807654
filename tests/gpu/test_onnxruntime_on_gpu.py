"""ONNX Runtime's CUDA provider on a real GPU: skipped, visibly, where there is none. `pytest -m gpu tests/gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles

from perceiver_runtime.backends import open_backend
from perceiver_runtime.errors import FeedError, UnavailableError, UsageError
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.execution.session import Session
from perceiver_runtime.measure.verify import verify

pytestmark = pytest.mark.gpu
BACKEND = "onnxruntime-cuda"
SIZES = [(1, 7, 10), (3, 9, 8), (4, 32, 64)]


@pytest.fixture
def torch() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU")
    return torch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    try:
        open_backend(BACKEND)
    except UnavailableError as error:
        pytest.skip(str(error))
    return tiny_bundles.write(tmp_path / "bundle", tiny_bundles.full_model(), tiny_bundles.feeds(), tolerance=1e-4)


@pytest.fixture
def session(path: Path) -> Iterator[Session]:
    with open_session(path, BACKEND, callers=3) as opened:
        yield opened


def check(got: dict[str, Any], feeds: tiny_bundles.Arrays) -> None:
    expected = tiny_bundles.reference(tiny_bundles.full_model(), feeds)
    for name, array in got.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "keys", "queries"), SIZES)
def test_values_stay_on_the_device(session: Session, batch: int, keys: int, queries: int) -> None:
    feeds = tiny_bundles.feeds(batch, keys, queries)
    check(session.run(feeds), feeds)


def test_the_bundle_verifies(path: Path) -> None:
    assert verify(path, BACKEND).passed


def test_captured_graphs_answer_the_same(session: Session) -> None:
    """Ten runs of three sizes in turn: captured at the first, launched at the others, on new numbers each."""
    for seed in range(10):
        for size in SIZES:
            feeds = tiny_bundles.feeds(*size, seed)
            check(session.run(feeds), feeds)
    assert session.device.cuda_graphs() == "on"  # type: ignore[attr-defined]
    feeds = tiny_bundles.feeds(*SIZES[0])
    first = session.run(feeds)
    for _ in range(10):
        for name, array in session.run(feeds).items():
            np.testing.assert_array_equal(array, first[name])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("given", [True, False])
def test_arrays_of_torch(session: Session, torch: Any, size: tuple[int, int, int], given: bool) -> None:
    stream = torch.cuda.Stream()
    with session.caller(stream if given else None) as caller, torch.cuda.stream(stream):
        for seed in range(5):
            feeds = tiny_bundles.feeds(*size, seed)
            arrays = {name: torch.from_numpy(array).cuda(non_blocking=True) for name, array in feeds.items()}
            answers = torch.zeros(size[0], size[2], 5, device="cuda")
            results = caller.run(arrays, out={"answers": answers})
            assert results["answers"] is answers
            taken = {name: torch.from_dlpack(array) for name, array in results.items()}
            check({name: array.cpu().numpy() for name, array in taken.items()}, feeds)
            check({"logits": results["logits"].numpy()}, feeds)


def test_work_is_in_the_order_of_the_callers_stream(session: Session, torch: Any) -> None:
    """Feeds are written by late work of the stream, answers read by its next; the host waits for nothing."""
    stream, feeds = torch.cuda.Stream(), tiny_bundles.feeds(*SIZES[2])
    arrays = {name: torch.zeros(array.shape, device="cuda") for name, array in feeds.items()}
    answers = torch.zeros(SIZES[2][0], SIZES[2][2], 5, device="cuda")
    pinned = {name: torch.from_numpy(array).pin_memory() for name, array in feeds.items()}
    with session.caller(stream) as caller:
        caller.run(arrays, out={"answers": answers})
        with torch.cuda.stream(stream):
            for _ in range(20):
                torch.cuda._sleep(10_000_000)
                for name, array in arrays.items():
                    array.copy_(pinned[name], non_blocking=True)
                caller.run(arrays, out={"answers": answers})
                seen = answers.clone()
                for array in arrays.values():
                    array.zero_()
                answers.zero_()
        stream.synchronize()
    check({"answers": seen.cpu().numpy()}, feeds)


def test_encode_once_decode_many(session: Session, torch: Any) -> None:
    feeds = tiny_bundles.feeds(*SIZES[1])
    arrays = {name: torch.from_numpy(array).cuda() for name, array in feeds.items()}
    with session.caller() as one, session.caller(torch.cuda.current_stream()) as other:
        encoded = one.encode(arrays)
        for _ in range(4):
            answers = other.decode(encoded, {"queries": arrays["queries"]})["answers"]
            check({"answers": answers.numpy()}, feeds)
    again = session.decode(session.encode(feeds), {"queries": feeds["queries"]})
    check({"answers": again["answers"]}, feeds)


def test_two_threads_and_callers(session: Session, torch: Any) -> None:
    """PyTorch's arrays are made before: it may not be used by one thread while another captures."""
    cases = [tiny_bundles.feeds(*SIZES[seed % 3], seed) for seed in range(30)]
    arrays = [{name: torch.from_numpy(array).cuda() for name, array in feeds.items()} for feeds in cases]
    streams = iter([torch.cuda.Stream() for _ in range(2)])
    torch.cuda.synchronize()

    def on_arrays(cases: list[tiny_bundles.Arrays]) -> None:
        with session.caller(next(streams)) as caller:
            for feeds, given in zip(cases, arrays, strict=True):
                results = caller.run(given)
                check({name: array.numpy() for name, array in results.items()}, feeds)

    def on_numpy(cases: list[tiny_bundles.Arrays]) -> None:
        for feeds in cases:
            check(session.run(feeds), feeds)

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(call, cases) for call in (on_numpy, on_arrays, on_numpy, on_arrays)]:
            each.result()
    on_numpy(cases)


def test_unfit_arrays_are_refused(session: Session, torch: Any) -> None:
    feeds = tiny_bundles.feeds()
    x = torch.from_numpy(feeds["x"]).cuda()
    with session.caller() as caller:
        for wrong, message in ((x.half(), "got dtype float16"), (x.mT.contiguous().mT, "contiguous")):
            with pytest.raises(FeedError, match=message):
                caller.run({**feeds, "x": wrong})
        check({name: array.numpy() for name, array in caller.run({**feeds, "x": x}).items()}, feeds)
    with pytest.raises(UsageError, match="priority='high'"):
        session.caller(priority="high")


def test_generation(path: Path, tmp_path: Path) -> None:
    from engines.test_simulated_generation import inputs, speaker

    speaking = tiny_bundles.write(tmp_path / "speaker", speaker(), inputs(1))
    with open_session(speaking, "onnxruntime") as plain, open_session(speaking, BACKEND) as session:
        for batch in (12, 3, 12):
            expected, got = plain.generate(inputs(batch)), session.generate(inputs(batch))
            np.testing.assert_array_equal(got.ids, expected.ids)
            np.testing.assert_allclose(got.log_probs, expected.log_probs, rtol=1e-4, atol=1e-5)
