"""Ranges of integer inputs, derived from what traced modules index; and of floats that a graph casts to FP16."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.ir.value_ranges import index_ranges
from perceiver_runtime import FeedError, open_session
from perceiver_runtime.cli.report import describe
from perceiver_runtime.manifest import Manifest, Source
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Profile, Range, TensorSpec, ValueRange

ROWS, COLUMNS = 10, 3
PROFILE = Profile("default", {"batch": Range(1, 2, 8)})
IDS = TensorSpec("ids", "int64", ("batch", COLUMNS))
OUT = TensorSpec("out", "float32", ("batch", COLUMNS, 4))


class Indexing(nn.Module):
    """A table of 10 rows, and a longer one, indexed by what a function makes of ids (B, 3)."""

    def __init__(self, index: Callable[[Indexing, Tensor], Tensor]) -> None:
        super().__init__()
        self.table, self.longer = nn.Embedding(ROWS, 4), nn.Embedding(50, 4)
        self.index = index

    def forward(self, ids: Tensor) -> Tensor:
        return self.index(self, ids)


CASES: dict[str, tuple[Callable[[Indexing, Tensor], Tensor], tuple[int, int] | None]] = {
    "embedding": (lambda m, i: m.table(i), (0, 9)),
    "table[ids]": (lambda m, i: m.table.weight[i], (0, 9)),
    "cast and reshaped": (lambda m, i: m.table(i.to(torch.int32).reshape(-1)).reshape(-1, COLUMNS, 4), (0, 9)),
    "joined with another": (lambda m, i: m.table(torch.cat([i, i * 0], 1))[:, :COLUMNS], (0, 9)),
    "both tables": (lambda m, i: m.table(i) + m.longer(i), (0, 9)),
    "shifted": (lambda m, i: m.table(i - 1), (1, 10)),
    "scaled and shifted": (lambda m, i: m.table(2 * i + 1), (0, 4)),
    "clamped from below": (lambda m, i: m.table(i.clamp(min=0)), (np.iinfo(np.int64).min, 9)),
    "clamped": (lambda m, i: m.table(i.clamp(0, 9)), None),
    "chosen": (lambda m, i: m.table(torch.where(i < 0, 0, i)), None),
    "remainder": (lambda m, i: m.table(i % ROWS), None),
    "a table for each column": (
        lambda m, i: torch.stack([m.table(i[:, 0]), m.longer(i[:, 1]), m.table(i[:, 2])], 1),
        (0, 49),
    ),
    "a column that is a number": (
        lambda m, i: torch.stack([m.table(i[:, 0]), i[:, 1:2].float().expand(-1, 4), m.table(i[:, 2])], 1),
        None,
    ),
    "columns with offsets": (lambda m, i: m.longer(i + torch.tensor([0, 10, 20])), (-20, 49)),
    "one-hot": (lambda m, i: nn.functional.one_hot(i, ROWS).float() @ m.table.weight, (0, 9)),
    "padded": (lambda m, i: m.table(nn.functional.pad(i, (1, 0)))[:, 1:], (0, 9)),
    "unbound": (lambda m, i: torch.stack([m.table(column) for column in i.unbind(1)], 1), (0, 9)),
    "compared": (lambda m, i: m.table(i) * (i != 0).unsqueeze(-1), (0, 9)),
    "a number": (lambda m, i: i.float().unsqueeze(-1).expand(-1, -1, 4) * 2, None),
    "gathered from an activation": (
        lambda m, i: torch.gather(
            m.table.weight[None].expand(i.shape[0], -1, -1) + 1, 1, i[..., None].expand(-1, -1, 4)
        ),
        (0, 9),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_ranges_of_a_module(case: str) -> None:
    index, expected = CASES[case]
    graph = trace(Component("toy", Indexing(index).eval(), (IDS,), (OUT,)), PROFILE)
    found = index_ranges(graph.graph, PROFILE)
    assert found == ({} if expected is None else {"ids": ValueRange(*expected)})


def exported(directory: Path, module: nn.Module, spec: TensorSpec, golden: np.ndarray, precision: str) -> Manifest:
    step = Step("net", {spec.name: spec.name}, {"out": "out"}, "encode")
    cut = Cut((Component("net", module.eval(), (spec,), (OUT,)),), Pipeline((spec,), (OUT,), (step,)), PROFILE)
    blueprint = Blueprint(Source("toy", "toy", "0" * 64, {}, pretrained=False), cut, ({spec.name: golden},))
    return export_bundle(blueprint, directory, precision)


def test_a_bundle_refuses_ids_outside_the_table_and_holds_the_range(tmp_path: Path) -> None:
    ids = np.array([[1, 2, 3], [0, 9, 4]])
    manifest = exported(tmp_path / "bundle", Indexing(CASES["embedding"][0]), IDS, ids, "fp32")
    assert manifest.pipeline.inputs[0].range == manifest.component("net").inputs[0].range == ValueRange(0, 9)
    assert "input   ids: int64[batch, 3], 0 to 9\n" in describe(manifest)
    assert "| input, 0 to 9 | `ids` |" in (tmp_path / "bundle" / "README.md").read_text()
    with open_session(tmp_path / "bundle", threads=1) as session:
        for bad, value, place in ((ids - 1, -1, r"1, 0"), (ids + 1, 10, r"1, 1")):
            for call in (session.run, lambda feeds: session.run_component("net", feeds)):
                with pytest.raises(FeedError, match=rf"ids: expected 0 to 9, got {value} at \[{place}\]; give ids"):
                    call({"ids": bad})


def test_rows_that_golden_inputs_count_from_the_end_are_allowed(tmp_path: Path) -> None:
    ids = np.array([[-1, 2, 3], [0, 9, 4]])
    manifest = exported(tmp_path / "bundle", Indexing(CASES["table[ids]"][0]), IDS, ids, "fp32")
    assert manifest.pipeline.inputs[0].range is None
    assert manifest.component("net").inputs[0].range is None


class Doubled(nn.Module):
    """x (B, 3, 4) through a linear layer at once, or behind a normalisation."""

    def __init__(self, normed: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4) if normed else nn.Identity()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.norm(x))
        return out


@pytest.mark.parametrize(("precision", "normed"), [("fp16", False), ("fp16", True), ("fp32", False)])
def test_floats_that_are_cast_to_fp16_must_fit(tmp_path: Path, precision: str, normed: bool) -> None:
    spec = TensorSpec("x", "float32", ("batch", COLUMNS, 4))
    x = np.random.default_rng(0).standard_normal((2, COLUMNS, 4)).astype(np.float32)
    manifest = exported(tmp_path / "bundle", Doubled(normed), spec, x, precision)
    limited = precision == "fp16" and not normed
    assert manifest.pipeline.inputs[0].range == (ValueRange(-65504, 65504) if limited else None)
    x[1, 2, 3] = -65600
    for check in (True, False):
        with open_session(tmp_path / "bundle", threads=1, check_finite=check) as session:
            if limited and check:
                with pytest.raises(FeedError, match=r"at most 65504, got -65600\.0 at \[1, 2, 3\]"):
                    session.run({"x": x})
            else:
                assert session.run({"x": x})["out"].shape == x.shape


def test_ranges_are_no_part_of_what_a_spec_is() -> None:
    assert dataclasses.replace(IDS, range=ValueRange(0, 9)) == IDS
