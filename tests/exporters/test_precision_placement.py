"""Placement: the fewest layers in FP32 that hold a budget, measured, promised, and proven."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from perceiver_exporters.component import Blueprint
from perceiver_exporters.ir.graph import has_constant_weight, products
from perceiver_exporters.precision import PRECISIONS, Measured
from perceiver_exporters.precision.calibration.calibrate import calibrate
from perceiver_exporters.precision.integers.plan import ComponentPlan
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.precision.options import Budget, QuantizationOptions, Run
from perceiver_exporters.precision.placement import pareto
from perceiver_exporters.precision.placement.pareto import CHART, TABLE
from perceiver_exporters.precision.placement.search import Pareto, Point, Sensitivity, _fewest, keep, sensitivities
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_exporters.samples import make_samples
from perceiver_runtime import verify
from perceiver_runtime.errors import CheckError

from .conftest import Bundle


@pytest.mark.parametrize("needed", [0, 1, 2, 3, 5, 8, 9, 10])
def test_the_fewest_layers_are_found(needed: int) -> None:
    tried: list[int] = []

    def holds(kept: int) -> bool:
        tried.append(kept)
        return kept >= needed

    assert _fewest(10, holds) == (needed if needed <= 10 else None)
    assert len(set(tried)) <= 8
    assert _fewest(10, lambda _: False) is None


def agreement(blueprint: Blueprint, tolerance: float) -> Budget:
    """Scores a run by how many golden logits lie within a distance of the reference's: a stand-in for accuracy."""
    golden = make_samples(blueprint.cut, blueprint.golden)

    def score(run: Run) -> Mapping[str, float]:
        near = [np.abs(run(g.feeds, ("logits",))["logits"] - g.values["logits"]) < tolerance for g in golden]
        return {"logits": float(np.concatenate([n.ravel() for n in near]).mean())}

    return Budget(0.0, score)


def test_the_bundle_keeps_what_was_chosen_and_no_more(
    bundle: Bundle, blueprint: Blueprint, progress: list[str]
) -> None:
    options = QuantizationOptions(smooth=False, budget=agreement(blueprint, 0.02))
    path, manifest = bundle("int8", quantization=options)
    table = json.loads((path / TABLE).read_text())
    kept = [(s["component"], s["layer"]) for s in table["order"][: table["chosen"]]]
    assert 0 < table["chosen"] < len(table["order"])
    report = load_record(path / PATH)
    assert sorted(kept) == sorted((e.component, layer) for e in report for layer in e.kept)
    for entry in report:
        graph = ir.load(path / manifest.component(entry.component).onnx).graph
        weighted = [node for node in products(graph) if has_constant_weight(node)]
        single = [node for node in weighted if node.inputs[1] is not None and node.inputs[1].is_initializer()]
        assert len(single) == len(entry.kept)
        assert (entry.weighted < 1.0) == bool(entry.kept)
    assert {TABLE, PATH} <= set(manifest.files)
    assert any(line.startswith("placement: 0 of ") for line in progress)
    assert verify(path).passed
    assert "Layers kept in FP32" in (path / "README.md").read_text()


def test_the_pareto_table_holds_all_that_was_tried(bundle: Bundle, blueprint: Blueprint) -> None:
    path, _ = bundle("int8", quantization=QuantizationOptions(budget=agreement(blueprint, 0.02)))
    table = json.loads((path / TABLE).read_text())
    points = {p["kept"]: p for p in table["points"]}
    assert list(points) == sorted(points)
    assert {0, table["chosen"] - 1, table["chosen"]} <= set(points)
    for kept, point in points.items():
        assert (max(point["lost"].values()) <= 0) == (kept >= table["chosen"])
        assert point["milliseconds"] > 0
    first, last = points[0], points[max(points)]
    assert first["bytes"] < last["bytes"]
    assert first["error"] > last["error"]
    errors = [s["error"] for s in table["order"]]
    assert errors == sorted(errors, reverse=True)


def test_a_budget_that_holds_at_once_keeps_nothing(bundle: Bundle, blueprint: Blueprint) -> None:
    path, _ = bundle("int8", quantization=QuantizationOptions(budget=agreement(blueprint, 100.0)))
    assert json.loads((path / TABLE).read_text())["chosen"] == 0
    assert all(entry.kept == () and entry.weighted == 1.0 for entry in load_record(path / PATH))


def test_a_budget_that_nothing_holds_fails_and_writes_no_bundle(bundle: Bundle, tmp_path: Path) -> None:
    scores = iter([1.0])

    def score(_: Run) -> Mapping[str, float]:
        return {"logits": next(scores, 0.0)}

    with pytest.raises(CheckError, match=r"0\.5 .*2\d layers.*100\.00"):
        bundle("int8", quantization=QuantizationOptions(budget=Budget(0.5, score)))
    assert list(tmp_path.iterdir()) == []


def test_the_most_sensitive_layer_comes_first(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    """A range a thousand times too wide leaves one layer no levels at all."""
    golden = make_samples(blueprint.cut, blueprint.golden)
    statistics = calibrate(blueprint.cut, graphs, blueprint.calibration)
    statistics["processor_block"].sites["9"].histogram.high = 1e4  # the tenth product there: 1.attention.output
    plan = {name: ComponentPlan(each) for name, each in statistics.items()}
    first = sensitivities(Measured(blueprint.cut, graphs, (), golden), plan, PRECISIONS["int8"], SCHEMES["cpu"])[0]
    assert (first.component, first.layer) == ("processor_block", "1.attention.output")
    kept = keep(plan, [first, Sensitivity("decoder", "head", 0.0)])
    assert {name: set(each.kept) for name, each in kept.items()} == {
        "encoder": set(),
        "processor_block": {"1.attention.output"},
        "decoder": {"head"},
    }


def test_the_chart_is_drawn_where_matplotlib_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    point = Point(1, 0.1, {"logits": 0.2}, 1000, 1.5)
    table = Pareto(0.5, 1, (Sensitivity("a", "b", 0.1),), (point,))
    assert pareto.save_pareto(table, tmp_path) == (TABLE, CHART)
    assert "<svg" in (tmp_path / CHART).read_text()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert not pareto.draw(table, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
