"""Calibration inputs are read anew in each pass, and are the same in each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from perceiver_exporters.component import Blueprint
from perceiver_exporters.exporter import Exporter, Tracer
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.reference import Feeds
from perceiver_exporters.stream import Unchanging
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.errors import DatasetError


class Stream:
    """Feeds that are made when they are read."""

    def __init__(self, count: int, make: Callable[[int, int], float] = lambda number, _: number) -> None:
        self.count, self.make, self.passes = count, make, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Feeds]:
        self.passes += 1
        for number in range(self.count):
            random = np.random.default_rng(number)
            pixels = random.standard_normal((4, 1, 16, 16), dtype=np.float32)
            yield {"pixel_values": pixels + np.float32(self.make(number, self.passes))}


def test_a_stream_calibrates_as_a_tuple_does(blueprint: Blueprint, tracer: Tracer) -> None:
    stream = Stream(3)
    bounds = []
    for calibration in (stream, tuple(Stream(3))):
        made = dataclasses.replace(blueprint, calibration=calibration)
        plan = Exporter(made, PRECISIONS["int8"], TARGETS["cpu"], tracer=tracer).records().plan
        bounds.append({n: [s.bounds("minmax") for s in each.statistics.sites.values()] for n, each in plan.items()})
    assert bounds[0] == bounds[1]
    assert stream.passes >= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda number, turn: turn * (number == 2), "another one, number 2"),
        (lambda number, turn: number + turn, "another one, number 0"),
    ],
)
def test_data_that_change_between_two_passes_are_refused(make: Callable[[int, int], float], message: str) -> None:
    feeds = Unchanging(Stream(3, make), "calibration data")
    assert len(list(feeds)) == 3
    with pytest.raises(DatasetError, match=message) as caught:
        list(feeds)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("stated", [2, 4])
def test_another_number_of_feeds_than_stated_is_refused(stated: int) -> None:
    class Wrong(Stream):
        def __len__(self) -> int:
            return stated

    with pytest.raises(DatasetError, match=f"the same {stated} feeds"):
        list(Unchanging(Wrong(3), "calibration data"))
