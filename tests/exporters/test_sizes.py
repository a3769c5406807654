"""Ranges of dynamic dimensions: how they are written, what a model takes, and bundles that take no other sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from perceiver_exporters.component import Blueprint
from perceiver_exporters.dynamic_sizes import with_ranges
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_runtime import FeedError, UsageError, open_session, verify
from perceiver_runtime.format.ranges import batch_within, parse_ranges
from perceiver_runtime.pipeline import Chunk
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

TRACES = SharedTraces()
"""The first export traces; a narrow range must not change the graphs."""


def test_ranges_are_read_as_they_are_written() -> None:
    assert parse_ranges(["batch=1:4:16", "length=7"]) == {"batch": Range(1, 4, 16), "length": Range(7, 7, 7)}
    assert parse_ranges([f"batch={Range(1, 4, 16)}"]) == {"batch": Range(1, 4, 16)}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["batch"], "expected NAME=MIN:OPT:MAX"),
        (["batch=1:4"], "expected NAME=MIN:OPT:MAX"),
        (["=1:2:3"], "expected NAME=MIN:OPT:MAX"),
        (["batch=1:x:3"], "expected NAME=MIN:OPT:MAX"),
        (["batch=-1:2:3"], "expected NAME=MIN:OPT:MAX"),
        (["batch=1:2:3", "batch=4"], "give each dimension once"),
    ],
)
def test_other_texts_are_refused(texts: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_ranges(texts)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("btch=1:2:3", r"no such dynamic dimension; expected one of batch \(1:1:64\), length \(1:16:16\)"),
        ("batch=0:1:2", "expected 1 <= MIN <= OPT <= MAX"),
        ("batch=2:1:4", "expected 1 <= MIN <= OPT <= MAX"),
        ("batch=1:4:2", "expected 1 <= MIN <= OPT <= MAX"),
        ("batch=1:1:3000000000", "<= 2147483647"),
        ("length=1:8:17", "length=1:8:17: expected sizes within 1 to 16"),
        ("length=2:4:8", "the last chunk holds what remains; expected MIN 1"),
    ],
)
def test_ranges_that_the_model_does_not_take_are_refused(blueprint: Blueprint, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        with_ranges(chunked(blueprint), parse_ranges([text]))


def chunked(blueprint: Blueprint) -> Blueprint:
    """With a dimension that is read in chunks."""
    cut = blueprint.cut
    profile = Profile("default", {"batch": Range(1, 1, 64), "length": Range(1, 16, 16)})
    first = dataclasses.replace(cut.pipeline.steps[0], chunk=Chunk("length", 16))
    pipeline = dataclasses.replace(cut.pipeline, steps=(first, *cut.pipeline.steps[1:]))
    return dataclasses.replace(blueprint, cut=dataclasses.replace(cut, pipeline=pipeline, profile=profile))


def test_a_chunk_has_its_dimensions_opt(blueprint: Blueprint) -> None:
    sized = with_ranges(chunked(blueprint), parse_ranges(["length=1:4:8"]))
    assert sized.cut.pipeline.steps[0].chunk == Chunk("length", 4)
    assert sized.cut.profile.dimensions["length"] == Range(1, 4, 8)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("batch=1:2:8", [[0, 1, 2]]),
        ("batch=1:1:2", [[0, 1], [2]]),
        ("batch=2", [[0, 1], [2, 0]]),
        ("batch=4", [[0, 1, 2, 0]]),
    ],
)
def test_golden_rows_are_split_and_repeated(blueprint: Blueprint, text: str, rows: list[list[int]]) -> None:
    pixels: Array = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1) * np.ones((1, 1, 16, 16), np.float32)
    made = dataclasses.replace(blueprint, golden=({"pixel_values": pixels},))
    golden = with_ranges(made, parse_ranges([text])).golden
    assert [feeds["pixel_values"][:, 0, 0, 0].tolist() for feeds in golden] == rows


def test_golden_inputs_are_cut_to_the_largest_size(blueprint: Blueprint) -> None:
    ids = TensorSpec("ids", "int64", ("batch", "length"))
    cut = dataclasses.replace(
        blueprint.cut,
        pipeline=dataclasses.replace(blueprint.cut.pipeline, inputs=(ids,)),
        profile=Profile("default", {"batch": Range(1, 1, 64), "length": Range(1, 16, 16)}),
    )
    made = dataclasses.replace(blueprint, cut=cut, golden=({"ids": np.arange(20).reshape(2, 10)},))
    (feeds,) = with_ranges(made, parse_ranges(["length=1:4:6"])).golden
    assert feeds["ids"].tolist() == [[0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15]]
    with pytest.raises(UsageError, match="ids of the golden inputs has 10; allow fewer"):
        with_ranges(made, parse_ranges(["length=12:14:16"]))


@pytest.mark.parametrize("text", ["batch=1", "batch=2:2:3", "batch=1:3:100"])
def test_a_bundle_takes_the_sizes_that_were_chosen(blueprint: Blueprint, tmp_path: Path, text: str) -> None:
    """And its graphs stay dynamic, whatever the range: PyTorch would make a single size part of them."""
    chosen = parse_ranges([text])["batch"]
    manifest = export_bundle(with_ranges(blueprint, {"batch": chosen}), tmp_path / "bundle", tracer=TRACES)
    assert manifest.profiles[0].dimensions["batch"] == chosen
    assert verify(tmp_path / "bundle").passed
    graph = onnx.load(tmp_path / "bundle/onnx/encoder.onnx").graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    with open_session(tmp_path / "bundle") as session:
        image = np.zeros((chosen.max + 1, 1, 16, 16), np.float32)
        assert session.run({"pixel_values": image[1:]})["logits"].shape[0] == chosen.max
        wanted = Range(chosen.min, chosen.opt, chosen.max + 1)
        with pytest.raises(FeedError, match=f"export again with --range batch={wanted}"):
            session.run({"pixel_values": image})


@pytest.mark.parametrize(
    ("ranges", "wanted", "nearest"),
    [([Range(1, 1, 8)], 64, 8), ([Range(4, 4, 4)], 1, 4), ([Range(1, 1, 4), Range(16, 16, 16)], 9, 4), ([], 5, 5)],
)
def test_the_nearest_batch(ranges: list[Range], wanted: int, nearest: int) -> None:
    assert batch_within([Profile(str(r), {"batch": r}) for r in ranges], wanted) == nearest
