"""SIMULATION: callers beside each other, each with a stream and contexts of its own over shared engines."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from engines.simulation.foreign import ForeignStream, Tensor
from engines.simulation.heap import SimulationError
from engines.simulation.jetson import SimulatedJetson
from engines.simulation.order import Access, Order, Work

from perceiver_runtime import Session, UnavailableError, UsageError, load_bundle, open_session

CALLERS = 4


def opened(path: Path, jetson: SimulatedJetson, **options: Any) -> Session:
    return Session(load_bundle(path), jetson.backend(), **options)


def test_four_callers_overlap(built: Path, jetson: SimulatedJetson, model: tiny_bundles.Model) -> None:
    """Each pair of streams has runs that nothing orders; each caller gets its own answers."""
    cases = [tiny_bundles.feeds(1 + index % 2, seed=index) for index in range(CALLERS)]
    with opened(built, jetson) as session:
        streams = [ForeignStream(jetson.cuda) for _ in range(CALLERS)]
        callers = [session.caller(stream) for stream in streams]
        arrays = [{n: Tensor(s, a) for n, a in c.items()} for s, c in zip(streams, cases, strict=True)]
        for _ in range(3):
            results = [caller.run(given) for caller, given in zip(callers, arrays, strict=True)]
        for got, feeds in zip(results, cases, strict=True):
            wanted = tiny_bundles.reference(model, feeds)["answers"]
            np.testing.assert_allclose(got["answers"].numpy(), wanted, rtol=2e-5, atol=2e-5)
    pairs = CALLERS * (CALLERS - 1) // 2
    assert len(jetson.cuda.order.concurrent()) == pairs


def test_runs_of_one_caller_are_in_order(built: Path, jetson: SimulatedJetson) -> None:
    with opened(built, jetson) as session, session.caller(ForeignStream(jetson.cuda)) as caller:
        for seed in range(3):
            caller.run(tiny_bundles.feeds(seed=seed))
    assert jetson.cuda.order.concurrent() == set()


def test_threads_share_engines_and_nothing_else(
    built: Path, jetson: SimulatedJetson, model: tiny_bundles.Model
) -> None:
    cases = [tiny_bundles.feeds(1 + seed % 2, seed=seed) for seed in range(12)]
    with opened(built, jetson, callers=CALLERS) as session, ThreadPoolExecutor(CALLERS) as pool:
        for got, feeds in zip(pool.map(session.run, cases), cases, strict=True):
            wanted = tiny_bundles.reference(model, feeds)["answers"]
            np.testing.assert_allclose(got["answers"], wanted, rtol=2e-5, atol=2e-5)
        assert 1 <= len(session._lanes._idle) <= CALLERS
    del session
    gc.collect()
    assert jetson.cuda.heap.live == 0


def test_priorities(built: Path, jetson: SimulatedJetson) -> None:
    with opened(built, jetson, priority="high") as session:
        session.run(tiny_bundles.feeds())
        with session.caller(priority="normal"):
            assert list(jetson.cuda.priorities.values()) == [0, -5, 0]  # of the backend, the run, the caller
        for option in ("urgent", 5):
            with pytest.raises(UsageError, match="priority: expected normal or high"):
                session.caller(priority=option)  # type: ignore[arg-type]


def test_more_callers_than_allowed(built: Path, jetson: SimulatedJetson) -> None:
    with opened(built, jetson, callers=2) as session:
        one = session.caller()
        with pytest.raises(UsageError, match="stream: expected an integer"):
            session.caller("none")
        session.caller()
        with pytest.raises(UsageError, match=r"callers: 2 are open.*callers=3"):
            session.caller()
        session.run(tiny_bundles.feeds())
        one.close()
        one.close()
        session.caller().close()
        with pytest.raises(UsageError, match="closed"):
            one.run(tiny_bundles.feeds())
        kept = session.caller()
    with pytest.raises(UsageError, match="closed"):
        kept.run(tiny_bundles.feeds())
    with pytest.raises(UsageError, match="closed"):
        session.caller()


def test_a_caller_that_can_not_be_opened_does_not_count(
    built: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(built, jetson, callers=1) as session:
        with monkeypatch.context() as patch:
            refused = (jetson.cuda.cudaError_t.cudaErrorMemoryAllocation, None)
            patch.setattr(jetson.cuda, "cudaStreamCreateWithPriority", lambda *_: refused)
            with pytest.raises(UnavailableError, match="MemoryAllocation; use smaller batches or chunks, fewer"):
                session.caller()
        session.caller().close()


def test_memory_is_bounded(built: Path, jetson: SimulatedJetson) -> None:
    with opened(built, jetson) as session, session.caller() as caller:
        caller.run(tiny_bundles.feeds())
        one = jetson.cuda.heap.in_use
    del caller, session
    gc.collect()
    with opened(built, jetson, device_memory=one + one // 2) as session:
        with session.caller() as caller:
            caller.run(tiny_bundles.feeds())
            with session.caller() as other:
                with pytest.raises(UnavailableError, match=r"device memory: expected at most \d+ bytes.*fewer callers"):
                    other.run(tiny_bundles.feeds())
                caller.run(tiny_bundles.feeds())
        del caller, other
        gc.collect()
        assert session.run(tiny_bundles.feeds())  # what callers had has gone back
    jetson.cuda.heap.capacity = jetson.cuda.heap.in_use + one // 4
    with (
        opened(built, jetson, device_memory=10 * one) as session,
        session.caller() as caller,
        pytest.raises(UnavailableError, match="MemoryAllocation; use smaller batches or chunks, fewer callers"),
    ):
        caller.run(tiny_bundles.feeds())


def test_memory_of_other_sizes_is_given_up_first(built: Path, jetson: SimulatedJetson) -> None:
    with opened(built, jetson) as session:
        session.run(tiny_bundles.feeds(4))
        one = session.device.budget.used  # type: ignore[attr-defined]
    del session
    gc.collect()
    with opened(built, jetson, device_memory=one + one // 32) as session:
        for batch in (4, 3, 4):  # their buffers do not fit together, beside the scratch memory
            assert session.run(tiny_bundles.feeds(batch))
        with pytest.raises(UnavailableError, match="device memory: expected at most"):
            session.caller().run(tiny_bundles.feeds(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callers": 0}, "callers: expected 1 to 64, got 0"),
        ({"callers": True}, "callers: expected 1 to 64"),
        ({"priority": "high"}, "priority='high': expected a TensorRT backend"),
        ({"priority": "low"}, "priority: expected normal or high"),
        ({"device_memory": 1 << 20}, "device_memory: expected a TensorRT backend or onnxruntime-cuda"),
        ({"device_memory": 0}, "device_memory: expected a number of bytes"),
    ],
)
def test_options_of_other_backends(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_session(path, "onnxruntime", threads=1, **options)


def test_races_are_noticed() -> None:
    """Unordered work on the same bytes, one of which writes; none if an event or the host orders it."""
    read, write = (Work(lambda: None, (Access(0, 8, each),)) for each in (False, True))
    order = Order()
    order.place(1, read)
    order.place(2, read)
    with pytest.raises(SimulationError, match="race"):
        order.place(3, write)
    order.record(10, 1)
    order.wait(3, 10)
    order.finish(2)
    order.place(3, write)
    with pytest.raises(SimulationError, match="race"):
        order.place(1, read)
