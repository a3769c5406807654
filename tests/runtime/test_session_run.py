"""A session computes what the same steps give in NumPy: whole or in chunks, at any batch, from several threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from tiny_bundles import Arrays, Model

from perceiver_runtime import BundleError, FeedError, Session, UsageError, load_bundle, open_session, verify
from perceiver_runtime.backends import open_backend
from perceiver_runtime.execution.lanes import MAX_IDLE_SIZES
from perceiver_runtime.pipeline import Chunk


def _check(got: Arrays, expected: Arrays) -> None:
    assert got
    for name, array in got.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("keys", "queries"), [(7, 10), (6, 8), (1, 1), (3, 4), (32, 64)])
def test_any_size(session: Session, model: Model, batch: int, keys: int, queries: int) -> None:
    """Chunks that divide the size, leave a rest, or are larger than it; contiguous (batch 1) and staged."""
    feeds = tiny_bundles.feeds(batch, keys, queries, seed=batch * keys)
    expected = tiny_bundles.reference(model, feeds)
    got = session.run(feeds)
    assert set(got) == {"logits", "answers", "scaled_keys"}
    _check(got, expected)
    _check(session.run(feeds), expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_chunks_equal_the_whole(tmp_path: Path, model: Model, session: Session, batch: int) -> None:
    whole = tiny_bundles.with_steps(model, fold={"chunk": None}, query={"chunk": None})
    feeds = tiny_bundles.feeds(batch, 20, 30)
    with open_session(tiny_bundles.write(tmp_path / "whole", whole, feeds), threads=1) as unchunked:
        _check(session.run(feeds), unchunked.run(feeds))


@pytest.mark.parametrize("keys", [1, 3, 20])
def test_only_the_first_piece(tmp_path: Path, model: Model, keys: int) -> None:
    """`answers` depend on the folded total: as if there were no keys but those of the first chunk."""
    steps = {"outputs": {"total_out": "total"}, "chunk": Chunk("n", tiny_bundles.FOLD, only_first=True)}
    changed = tiny_bundles.with_steps(model, fold=steps)
    outputs = tuple(spec for spec in model.pipeline.outputs if spec.name != "scaled_keys")
    parts = tuple(replace(part, outputs=part.outputs[:1]) if part.name == "fold" else part for part in changed.parts)
    changed = replace(changed, parts=parts, pipeline=replace(changed.pipeline, outputs=outputs))
    feeds = tiny_bundles.feeds(2, keys)
    first = {**feeds, "keys": feeds["keys"][:, : tiny_bundles.FOLD]}
    with open_session(tiny_bundles.write(tmp_path / "b", changed, first), threads=1) as session:
        _check(session.run(feeds), tiny_bundles.reference(changed, first))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("repeat", [1, 2, 5])
def test_repeats(tmp_path: Path, model: Model, repeat: int, batch: int) -> None:
    changed = tiny_bundles.with_steps(model, block={"repeat": repeat})
    feeds = tiny_bundles.feeds(batch)
    with open_session(tiny_bundles.write(tmp_path / "b", changed, feeds), threads=1) as session:
        _check(session.run(feeds), tiny_bundles.reference(changed, feeds))


@pytest.mark.parametrize("batch", [1, 2])
def test_chunked_values_between_steps(tmp_path: Path, model: Model, batch: int) -> None:
    """A value that is written in chunks and read again, in chunks of another size and whole, lives on the device."""
    steps = list(model.pipeline.steps)
    fold = steps[2]
    again = replace(fold, inputs={"keys": "scaled_keys", "total": "total"}, outputs={"total_out": "total"})
    steps[3:3] = [replace(again, chunk=Chunk("n", 2)), replace(again, chunk=None)]
    changed = replace(model, pipeline=replace(model.pipeline, steps=tuple(steps)))
    with open_session(tiny_bundles.write(tmp_path / "b", changed, tiny_bundles.feeds()), threads=1) as session:
        for seed in (3, 4):  # a stale buffer can't be right for both
            feeds = tiny_bundles.feeds(batch, 9, seed=seed)
            _check(session.run(feeds), tiny_bundles.reference(changed, feeds))
        assert set(session.run(feeds, ["answers"])) == {"answers"}


def test_default_input(session: Session, model: Model) -> None:
    feeds = tiny_bundles.feeds(2)
    ones = np.ones((2, 5), np.float32)
    half = ones * np.float32(0.5)
    _check(session.run({**feeds, "mask": half}), tiny_bundles.reference(model, {**feeds, "mask": half}))
    _check(session.run(feeds), tiny_bundles.reference(model, {**feeds, "mask": ones}))
    assert not np.allclose(session.run({**feeds, "mask": half})["logits"], session.run(feeds)["logits"])


@pytest.mark.parametrize("batch", [1, 2])
def test_default_of_an_input_that_exists_in_chunks(tmp_path: Path, model: Model, batch: int) -> None:
    pipeline = model.pipeline
    queries, answers = (
        replace(s, shape=("batch", "keys", *s.shape[2:])) for s in (pipeline.inputs[3], pipeline.outputs[1])
    )
    pipeline = replace(
        pipeline,
        inputs=(*pipeline.inputs[:3], queries),
        outputs=(pipeline.outputs[0], answers, pipeline.outputs[2]),
        defaults={"mask": 1.0, "queries": 2.0},
    )
    changed = replace(model, pipeline=pipeline)
    feeds = tiny_bundles.feeds(batch, 10, 10)
    with open_session(tiny_bundles.write(tmp_path / "b", changed, feeds), threads=1) as session:
        twos = np.full_like(feeds["queries"], 2)
        expected = tiny_bundles.reference(changed, {**feeds, "queries": twos})
        _check(session.run({"x": feeds["x"], "keys": feeds["keys"]}), expected)
        with pytest.raises(FeedError, match="queries has a default, but no given input has its size keys"):
            session.decode(session.encode(feeds))


def test_encode_once_decode_many(session: Session, model: Model) -> None:
    feeds = tiny_bundles.feeds(2)
    expected = tiny_bundles.reference(model, feeds)
    encoded = session.encode({name: feeds[name] for name in ("x", "keys")})
    assert set(encoded) == {"latents", "total"}
    _check(encoded, expected)
    decoded = session.decode(encoded, {"queries": feeds["queries"]})
    assert set(decoded) == {"logits", "answers"}
    _check(decoded, expected)
    other = tiny_bundles.feeds(2, queries=3, seed=9)["queries"]
    _check(session.decode(encoded, {"queries": other}), tiny_bundles.reference(model, {**feeds, "queries": other}))


def test_only_needed_steps_run(session: Session) -> None:
    """A head that nobody asked for does not run, and its inputs need not be given."""
    feeds = tiny_bundles.feeds()
    ran: list[str] = []
    got = session.run({"x": feeds["x"]}, ["logits"], record=lambda component, _: ran.append(component))
    assert set(got) == {"logits"}
    assert ran == ["encoder", "block", "block", "block", "head"]
    _check(got, session.run(feeds))
    encoded = session.encode(feeds)
    assert set(session.decode({"latents": encoded["latents"]}, outputs=["logits"])) == {"logits"}


@pytest.mark.parametrize("batch", [1, 2])
def test_outputs_may_be_called_like_inputs(tmp_path: Path, model: Model, batch: int) -> None:
    """A buffered and a chunked output under the names of inputs: run, some outputs, decode, and verify follow."""
    names = {"logits": "x", "answers": "queries", "scaled_keys": "scaled_keys"}
    outputs = tuple(replace(spec, name=names[spec.name]) for spec in model.pipeline.outputs)
    aliases = {"x": "logits", "queries": "answers"}
    changed = replace(model, pipeline=replace(model.pipeline, outputs=outputs, aliases=aliases))
    feeds = tiny_bundles.feeds(batch)
    values = tiny_bundles.reference(model, feeds)
    expected = {shown: values[value] for value, shown in names.items()}
    with open_session(tiny_bundles.write(tmp_path / "b", changed, tiny_bundles.feeds()), threads=1) as session:
        got = session.run(feeds)
        assert set(got) == set(expected)
        _check(got, expected)
        some = session.run(feeds, ["queries"])
        assert set(some) == {"queries"}
        _check(some, expected)
        _check(session.decode(session.encode(feeds), {"queries": feeds["queries"]}, ["queries", "x"]), expected)
        report = verify(session)
        assert report.passed
        chained = {r.tensor for r in report.reports if r.mode == "chained"}
        assert chained == {"x", "queries", "scaled_keys", "latents", "total"}
        with pytest.raises(UsageError, match="output answers; expected some of x, queries, scaled_keys"):
            session.run(feeds, ["answers"])


def test_results_belong_to_the_caller(session: Session) -> None:
    first = session.run(tiny_bundles.feeds(seed=1))
    kept = {name: array.copy() for name, array in first.items()}
    session.run(tiny_bundles.feeds(seed=2))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        array += 1


def test_feeds_of_any_layout(session: Session, model: Model) -> None:
    feeds = {name: np.asfortranarray(array)[:, ::-1] for name, array in tiny_bundles.feeds(2).items()}
    for array in feeds.values():
        array.flags.writeable = False
    _check(session.run(feeds), tiny_bundles.reference(model, feeds))


def test_threads_get_their_own_answers(session: Session, model: Model) -> None:
    """Twelve threads, three sizes and different inputs: no run sees another's buffers."""
    cases = [tiny_bundles.feeds(1 + seed % 3, 7, 10, seed) for seed in range(60)]
    expected = [tiny_bundles.reference(model, feeds) for feeds in cases]
    with ThreadPoolExecutor(12) as pool:
        for got, right in zip(pool.map(session.run, cases), expected, strict=True):
            _check(got, right)


def test_runs_overlap_as_far_as_the_backend_says(bundle: Path, model: Model) -> None:
    """Two runs of equal sizes meet inside one component; a third does not get in before one of them is done."""
    backend = open_backend("onnxruntime", threads=1)
    backend.concurrency = 2
    with Session(load_bundle(bundle), backend, 1) as session, ThreadPoolExecutor(6) as pool:
        meeting, inside, most = threading.Barrier(2, timeout=20), [0], [0]
        graph = session._executables["head"]
        bind = graph.bind

        def bind_meeting(*buffers: Any) -> Any:
            call = bind(*buffers)

            def run() -> None:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                meeting.wait()
                call()
                inside[0] -= 1

            return run

        graph.bind = bind_meeting  # type: ignore[assignment]
        cases = [tiny_bundles.feeds(2, seed=seed) for seed in range(20)]
        for got, feeds in zip(pool.map(session.run, cases), cases, strict=True):
            _check(got, tiny_bundles.reference(model, feeds))
        assert most == [2]
        assert [len(lane.plans) for lane in session._lanes._idle] == [1, 1]


def test_a_plan_that_failed_is_not_used_again(bundle: Path, model: Model) -> None:
    with open_session(bundle, threads=1) as session:
        feeds = tiny_bundles.feeds()
        session.run(feeds)
        ((plan,),) = (lane.plans.values() for lane in session._lanes._idle)
        with pytest.raises(ZeroDivisionError):
            session.run(feeds, record=lambda _component, _seconds: 1 / 0)  # type: ignore[arg-type]
        _check(session.run(feeds), tiny_bundles.reference(model, feeds))
        assert plan not in session._lanes._idle[0].plans.values()


def test_old_plans_are_dropped(session: Session, model: Model) -> None:
    for keys in range(1, MAX_IDLE_SIZES + 5):
        feeds = tiny_bundles.feeds(keys=keys)
        _check(session.run(feeds), tiny_bundles.reference(model, feeds))
    assert [len(lane.plans) for lane in session._lanes._idle] == [MAX_IDLE_SIZES]


def test_specs_and_description(session: Session) -> None:
    assert str(session.inputs[0]) == "x: float32[batch, 5, 4]"
    assert [spec.name for spec in session.outputs] == ["logits", "answers", "scaled_keys"]
    assert session.backend == "onnxruntime"
    assert session.manifest.source.name == "tiny"


def test_run_one_component(session: Session, model: Model) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 5, 6)).astype(np.float32)
    _check(session.run_component("block", {"latents": latents}), model.part("block").function(latents=latents))


def test_a_graph_that_lies_about_its_output(copy: Path) -> None:
    tiny_bundles.lie_about_output(copy)
    with pytest.raises(BundleError), open_session(copy) as session:
        session.run(tiny_bundles.feeds())


def test_chunked_values_never_exist_whole(copy: Path) -> None:
    """Keys, queries and answers go through buffers of one chunk's size: memory does not grow with them."""
    ranges = {"keys": {"min": 1, "opt": 7, "max": 10**6}, "queries": {"min": 1, "opt": 7, "max": 10**6}}
    tiny_bundles.change(copy, lambda m: m["profiles"][0]["dimensions"].update(ranges))
    allocated = []
    backend = open_backend("onnxruntime", threads=1)
    allocate = backend.device.allocate

    def recording(shape: tuple[int, ...], dtype: str) -> Any:
        allocated.append(shape)
        return allocate(shape, dtype)

    backend.device.allocate = recording
    with Session(load_bundle(copy), backend, 1) as session:
        session.run(tiny_bundles.feeds(2, keys=100, queries=100), ["answers", "logits"])
    assert sum(int(np.prod(shape)) for shape in allocated) < 100 * 4
    assert max(size for shape in allocated for size in shape) <= 6


def test_runs_on_the_same_buffers_are_bound_once(bundle: Path) -> None:
    """Repeats take turns between two buffers: the first call, then two bindings, however many repeats."""
    with open_session(bundle, threads=1) as session:
        bound = []
        graph = session._executables["block"]
        bind = graph.bind
        graph.bind = lambda *a: bound.append(1) or bind(*a)
        session.run(tiny_bundles.feeds())
        session.run(tiny_bundles.feeds(seed=4))
    assert len(bound) == tiny_bundles.REPEAT
