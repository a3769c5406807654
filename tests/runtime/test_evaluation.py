"""Evaluation on the device: metrics against values worked out by hand, and labelled samples of an archive."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles

from perceiver_runtime import Session
from perceiver_runtime.cli.main import main
from perceiver_runtime.errors import CheckError, DatasetError, FeedError, PerceiverError, UsageError
from perceiver_runtime.evaluation.dense import Flow, Reconstruction, Tokens
from perceiver_runtime.evaluation.evaluate import evaluate
from perceiver_runtime.evaluation.interface import Interface
from perceiver_runtime.evaluation.metrics import evaluate_classification
from perceiver_runtime.evaluation.tasks import TASKS, check_target, task_of
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec, ValueRange


def samples(rows: int = 9) -> dict[str, Array]:
    random = np.random.default_rng(0)
    feeds = tiny_bundles.feeds(rows)
    targets = random.integers(0, 2, (rows, 5))
    targets[0] = -100  # not scored
    return {**feeds, "logits": targets}


def test_tokens_are_scored_where_they_have_a_target() -> None:
    metric, logits = Tokens(), np.zeros((2, 3, 4), np.float32)
    logits[0, 0, 1] = math.log(3)  # 1/2 for the right one of 4
    metric.add(logits[:1], np.array([[1, -100, -1]]))
    metric.add(logits[1:], np.array([[3, 0, -1]]))  # 1/4 each; the first of equal ones is predicted
    found = metric.result()
    assert (found.samples, found.tokens, found.accuracy) == (2, 3, pytest.approx(2 / 3))
    assert found.bits_per_byte == pytest.approx((1 + 2 + 2) / 3)
    with pytest.raises(DatasetError, match="not negative"):
        Tokens().result()


def test_flow_is_scored_where_it_is_known() -> None:
    truth = np.zeros((1, 2, 2, 2))
    truth[0, 0, 0] = [100, 0]
    truth[0, 1, 1] = np.nan
    made = np.zeros((1, 2, 2, 2), np.float32)
    made[0, 0, 0] = [96, 0]  # 4 pixels, but 4% of the length: no outlier
    made[0, 0, 1] = [0, 5]  # an outlier
    metric = Flow()
    metric.add(made, truth)
    found = metric.result()
    assert (found.pixels, found.epe, found.fl_all) == (3, pytest.approx(3.0), pytest.approx(1 / 3))
    assert TASKS["flow"].share(found) == pytest.approx(2 / 3)
    with pytest.raises(CheckError):
        metric.add(np.full_like(made, np.nan), truth)


def test_reconstructions_are_scored_by_the_range_of_the_targets() -> None:
    targets = np.array([[0.0, 2.0], [1.0, 1.0]])
    metric = Reconstruction()
    for row in targets:
        metric.add(row[None] + 0.02, row[None])
    assert metric.result().psnr == pytest.approx(40.0)
    assert metric.result().peak == 2.0
    metric = Reconstruction()
    metric.add(targets, targets)
    assert metric.result().psnr is None
    with pytest.raises(DatasetError, match="more than one value"):
        Reconstruction().result()


def test_top_5_counts_the_five_likeliest() -> None:
    logits = np.tile(np.arange(7, dtype=np.float32), (3, 1))
    found = evaluate_classification(logits, np.array([6, 2, 1]), tuple("abcdefg"))
    assert found.top_5 == pytest.approx(2 / 3)
    equal = evaluate_classification(np.zeros((2, 7), np.float32), np.array([4, 5]), tuple("abcdefg"))
    assert equal.top_5 == 0.5  # of equal ones the first go first
    assert evaluate_classification(logits[:, :5], np.array([4, 2, 1]), tuple("abcde")).top_5 is None


@pytest.mark.parametrize(
    ("shape", "dtype", "rank", "task"),
    [
        (("batch", 10), "int64", 0, "classification"),
        (("batch", "length", 262), "int32", 1, "tokens"),
        (("batch", 4, 6, 2), "float32", 3, "flow"),
        (("batch", 3, 4, 4), "float32", 3, "reconstruction"),
        (("batch", 3), "float64", 1, "regression"),
        (("batch", 1), "float64", 0, "regression"),
    ],
)
def test_the_task_follows_from_the_targets(shape: tuple[int | str, ...], dtype: str, rank: int, task: str) -> None:
    assert task_of(TensorSpec("y", "float32", shape), np.dtype(dtype), rank) == task


def test_targets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DatasetError, match="expected class numbers, ids, a flow, or numbers"):
        task_of(TensorSpec("y", "float32", ("batch", 10)), np.dtype("int64"), 2)
    spec = TensorSpec("y", "float32", ("batch", 3, 2))
    with pytest.raises(DatasetError, match=r"expected \[3, 2\], got \[2, 2\]"):
        check_target(spec, "reconstruction", np.zeros((2, 2)))
    with pytest.raises(DatasetError, match="expected finite"):
        check_target(spec, "regression", np.full((3, 2), np.nan))
    with pytest.raises(DatasetError, match="expected 0 to 1, got 2"):
        check_target(spec, "tokens", np.array([-100, 2, 0]))


INTERFACE = Interface(
    (
        TensorSpec("ids", "int64", ("batch", "tokens"), ValueRange(0, 9)),
        TensorSpec("x", "float32", ("batch", 3)),
    ),
    (TensorSpec("logits", "float32", ("batch", "classes")),),
    profiles=(Profile("short", {"tokens": Range(1, 2, 4)}), Profile("long", {"tokens": Range(8, 8, 16)})),
)


@pytest.mark.parametrize(
    ("name", "sample", "message"),
    [
        ("x", np.zeros((1, 3), np.float32), r"x: expected rank 1 \(x: float32\[3\]\), got float32\[1, 3\]"),
        ("x", np.zeros(4, np.float32), r"x: expected x: float32\[3\], got float32\[4\]"),
        ("ids", np.zeros(6, np.int64), r"ids: expected ids: int64\[tokens\].* with tokens of .*, got int64\[6\]"),
        ("ids", np.array([3, 10]), "ids: expected .*9.*, got 3 to 10"),
    ],
)
def test_samples_that_do_not_fit_an_input_are_refused(name: str, sample: Array, message: str) -> None:
    spec = next(spec for spec in INTERFACE.inputs if spec.name == name)
    with pytest.raises(DatasetError, match=message):
        INTERFACE.check_sample(spec, sample)


def test_samples_of_any_profile_are_taken() -> None:
    for tokens in (1, 4, 8, 16):
        assert INTERFACE.check_sample(INTERFACE.inputs[0], np.zeros(tokens, np.int64)).shape == (tokens,)


def test_classes_have_a_fixed_number() -> None:
    with pytest.raises(DatasetError, match=r"logits: .*: expected a fixed number of classes"):
        INTERFACE.classes(INTERFACE.outputs[0])


def test_metrics_of_nothing_and_of_other_shapes_are_refused() -> None:
    flow = np.zeros((1, 2, 2, 2), np.float32)
    for metric in (Flow(), Reconstruction()):
        with pytest.raises(DatasetError, match=r"outputs \(1, 2, 2, 2\) do not fit targets \(1, 2, 2, 3\)"):
            metric.add(flow, np.zeros((1, 2, 2, 3), np.float32))
    unknown = Flow()
    unknown.add(flow, np.full_like(flow, np.nan))
    with pytest.raises(DatasetError, match="at least one pixel with a finite true flow, got none"):
        unknown.result()


def test_an_archive_is_evaluated(session: Session, model: tiny_bundles.Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", **samples())  # type: ignore[arg-type]
    found = [evaluate(session, tmp_path / "test.npz", batch=batch)[0] for batch in (1, 4, 64)]
    metric, given = Tokens(), samples()
    for rows in (slice(0, 4), slice(4, 8), slice(8, 9)):  # the bundle takes 4
        feeds = {name: array[rows] for name, array in given.items() if name != "logits"}
        metric.add(session.run(feeds, ["logits"])["logits"], given["logits"][rows])
    for each in found:
        assert (each.output, each.task, each.samples) == ("logits", "tokens", 9)
        assert each.metrics.accuracy == metric.result().accuracy
        assert each.metrics.bits_per_byte == pytest.approx(metric.result().bits_per_byte, rel=1e-5)


def test_the_command_prints_metrics(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "test.npz", **samples())  # type: ignore[arg-type]
    arguments = ["evaluate", str(bundle), "--data", str(tmp_path / "test.npz"), "--threads", "1"]
    assert main(arguments) == 0
    assert "bits_per_byte" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["task"], record["metrics"]["tokens"]) == ("tokens", 40)
    assert record["conditions"]["model"] == "tiny"
    assert main([*arguments[:3], str(tmp_path / "none.npz")]) == 3


GOOD = samples()


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({**GOOD, "y": GOOD["logits"]}, DatasetError, "no input and no output 'y'"),
        ({n: a for n, a in GOOD.items() if n != "x"}, DatasetError, r"test\.npz: input x: .*is missing"),
        ({n: a for n, a in GOOD.items() if n != "logits"}, DatasetError, "expected targets by the name of an output"),
        ({**GOOD, "logits": GOOD["logits"] + 2}, DatasetError, "sample 1: target of logits: expected 0 to 1, got 3"),
        ({**GOOD, "logits": GOOD["logits"][:4]}, DatasetError, "as many samples in all arrays"),
        ({**GOOD, "x": GOOD["x"].astype(np.float64)}, DatasetError, "samples 0 to 8: x: expected float32, got float64"),
        ({**GOOD, "x": np.full_like(GOOD["x"], np.nan)}, DatasetError, "samples 0 to 8: x: expected finite numbers"),
        ({n: a[:0] for n, a in GOOD.items()}, DatasetError, "at least one sample, got none"),
        ({**GOOD, "logits": GOOD["logits"].astype(np.float32)}, DatasetError, "expected class numbers, ids"),
    ],
)
def test_archives_that_do_not_fit_are_refused(
    session: Session, tmp_path: Path, arrays: dict[str, Array], error: type[PerceiverError], message: str
) -> None:
    np.savez(tmp_path / "test.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(error, match=message) as caught:
        evaluate(session, tmp_path / "test.npz")
    assert caught.value.exit_code == 3


def test_other_files_are_refused(session: Session, tmp_path: Path) -> None:
    np.save(tmp_path / "test.npy", GOOD["x"])
    with pytest.raises(FeedError, match=r"expected an \.npz file"):
        evaluate(session, tmp_path / "test.npy")
    with pytest.raises(UsageError, match="--batch"):
        evaluate(session, tmp_path / "test.npy", batch=0)
    with pytest.raises(UsageError, match=r"expected one \.npz file, got a directory"):
        evaluate(session, tmp_path)
