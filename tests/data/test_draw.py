"""The draw of samples for each use, and the check of each sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from factories.samples import arrays

from perceiver_deploy.data.draw import USES, DataOptions, allot, dataset_of, draw
from perceiver_deploy.data.drawn import Drawn
from perceiver_deploy.data.open import open_data
from perceiver_deploy.datasets import ArraySamples, Dataset
from perceiver_deploy.datasets.dataset import FeedsOf, fixed_batch
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_runtime.errors import DatasetError, UsageError
from perceiver_runtime.settings import ImageSettings, Processing
from perceiver_runtime.tensors import Array, TensorSpec

Change = Callable[[dict[str, Array]], object]


def drawn(model: Model, data: object, **options: Any) -> Dataset:
    return dataset_of(model, open_data(data), DataOptions(data, **options))


def numbers(data: Dataset) -> list[set[int]]:
    found = (data.golden, data.calibration, data.scored[0].samples)
    return [set(each.wanted.tolist()) for each in found if isinstance(each, Drawn)]


def test_no_sample_has_two_uses(model: Model) -> None:
    data = drawn(model, [arrays()])
    golden, calibration, evaluation = numbers(data)
    assert (len(golden), len(calibration), len(evaluation)) == (7, 27, 26)
    assert golden | calibration | evaluation == set(range(60))
    assert numbers(drawn(model, [arrays()])) == numbers(data)
    assert numbers(drawn(model, [arrays()], seed=1)) != numbers(data)


@pytest.mark.parametrize(
    ("total", "options", "expected"),
    [
        (1, {}, (1, 0, 0)),
        (2, {}, (1, 1, 0)),
        (64, {}, (8, 28, 28)),
        (100_000, {}, (8, 512, 2000)),
        (64, {"calibration": 50, "golden": 4}, (4, 50, 10)),
        (64, {"evaluation": 64}, (0, 0, 64)),
    ],
)
def test_numbers_of_samples(total: int, options: dict[str, int], expected: tuple[int, ...]) -> None:
    found = allot("x", total, DataOptions("x", **options))
    assert tuple(found[use] for use in USES) == expected
    parts = draw(total, found, 0)
    assert len(np.unique(np.concatenate(list(parts.values())))) == sum(expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"calibration": 100}, DatasetError, r"expected at least 100 samples \(100 for calibration\), got 60"),
        ({"golden": 30, "evaluation": 31}, DatasetError, "expected at least 61 samples"),
        ({"golden": 0}, UsageError, "--golden-samples"),
        ({"calibration": -1}, UsageError, "--calibration-samples"),
        ({"seed": -1}, UsageError, "--seed"),
    ],
)
def test_wrong_numbers_are_refused(model: Model, options: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        drawn(model, [arrays()], **options)


def test_manifest_and_blueprint_say_what_was_drawn(model: Model) -> None:
    data = drawn(model, [arrays()], calibration=30)
    assert data.record is not None
    assert (data.record.name, data.record.samples, data.record.calibration.samples) == ("list", 60, 30)
    assert len({data.record.golden.sha256, data.record.calibration.sha256, data.record.evaluation.sha256}) == 3
    made = blueprint(dataclasses.replace(model, dataset=data))
    assert len(made.golden[0]["pixel_values"]) == data.record.golden.samples
    assert sum(len(feeds["pixel_values"]) for feeds in made.calibration) == 30
    assert made.data == data.record


def edited(name: str, index: tuple[int, ...], value: float, dtype: Any = None) -> Iterator[dict[str, Array]]:
    given = arrays()
    given[name] = given[name].astype(dtype or given[name].dtype)
    given[name][index] = value
    yield given


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            ("pixel_values", (7, 0, 1, 2), np.nan),
            r"sample 7: pixel_values: expected finite .*nan at \[0, 1, 2\]",
        ),
        (("pixel_values", (9, 0, 0, 0), np.inf), "sample 9: .* got inf"),
        (("logits", (5,), 10), "sample 5: target of logits: expected 0 to 9, got 10"),
        (("logits", (5,), -1), "sample 5: target of logits: expected 0 to 9, got -1"),
        (("logits", (5,), 1, np.float32), "sample 0: targets of logits: .*expected class numbers"),
    ],
)
def test_samples_that_do_not_fit_are_refused(model: Model, edit: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        drawn(model, lambda: edited(*edit))
    assert caught.value.exit_code == 3


def test_sizes_that_do_not_fit_are_refused(model: Model) -> None:
    with pytest.raises(DatasetError, match=r"sample 0: pixel_values: expected .*1, 16, 16.*, got float32\[1, 8, 16\]"):
        drawn(model, [{"pixel_values": arrays()["pixel_values"][:, :, :8]}])


def test_an_empty_source_is_refused(model: Model) -> None:
    with pytest.raises(DatasetError, match="at least one sample, got none"):
        drawn(model, [])


def test_targets_of_some_samples_only_are_refused(model: Model) -> None:
    given = arrays()
    without = {"pixel_values": given["pixel_values"]}
    with pytest.raises(DatasetError, match=r"sample 60: expected targets of logits \(classification\).*got of none"):
        drawn(model, [given, without], evaluation=120)


def test_data_that_change_after_the_first_pass_are_refused(model: Model) -> None:
    passes: list[int] = []

    def changing() -> Iterator[dict[str, Array]]:
        passes.append(0)
        yield arrays(seed=len(passes) // 4)  # when it is opened, counted and surveyed: the same

    data = drawn(model, changing)
    with pytest.raises(DatasetError, match="the same samples in every pass"):
        [list(data.calibration.batches(64)) for _ in range(2)]


def test_images_go_through_the_processing_of_the_checkpoint(model: Model) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 24, 1)).astype(np.uint8)
    records = [{"image": image, "label": i} for i, image in enumerate(images)]
    with pytest.raises(UsageError, match="processing"):
        drawn(model, records)
    settings = ImageSettings(channels=1, size=(16, 16), mean=(0.5,), std=(0.25,))
    able = dataclasses.replace(model, processing=Processing(image=settings))
    data = drawn(able, records, evaluation=6)
    (batch,) = data.scored[0].samples.batches(64)
    assert batch.feeds["pixel_values"].shape == (6, 1, 16, 16)
    assert batch.targets["logits"].tolist() == list(range(6))
    assert -2.0 <= batch.feeds["pixel_values"].min() < batch.feeds["pixel_values"].max() <= 2.0


def test_a_model_of_one_batch_gets_that_many_rows() -> None:
    samples = ArraySamples({"x": np.arange(5)})
    feeds = FeedsOf(samples, size=64, fixed=2)
    assert [each["x"].tolist() for each in feeds] == [[0, 1], [2, 3], [4, 4]]
    assert len(feeds) == 3
    assert [each["x"].tolist() for each in FeedsOf(samples, size=3)] == [[0, 1, 2], [3, 4]]
    specs = [TensorSpec("x", "float32", (2, 8)), TensorSpec("x", "float32", ("batch", 8))]
    assert [fixed_batch([spec]) for spec in specs] == [2, 0]
