from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceiver_deploy.api.growth import GrowthReport, write_growth
from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose.error_growth import ErrorGrowth, measure_growth
from perceiver_exporters.diagnose.layer_error_growth import measure_layers
from perceiver_exporters.export import export_bundle
from perceiver_runtime import UsageError, open_session

from .conftest import Healthy
from .seeded import BLOCK, constant, seed
from .subjects import REPEAT, layer, trunk

Sources = Mapping[str, Blueprint]


def grow(bundle: Path, source: Blueprint) -> ErrorGrowth:
    with open_session(bundle, threads=1) as session:
        (growth,) = measure_growth(session, source.cut, source.golden)
    return growth


def test_growth_of_a_healthy_bundle(healthy: Healthy, sources: Sources) -> None:
    growth = grow(healthy("perceiver", "fp16"), sources["perceiver"])
    assert (growth.component, growth.value) == (BLOCK, "latents")
    assert len(growth.chained) == len(growth.amplified) == REPEAT + 1
    assert len(growth.teacher_forced) == REPEAT
    assert growth.chained[0] == growth.amplified[0] > 0
    assert all(1e-5 < error < 1e-2 for error in growth.teacher_forced)
    assert all(
        total < own + grown
        for total, own, grown in zip(growth.chained[1:2], growth.teacher_forced, growth.amplified[1:], strict=False)
    )


def test_an_encoders_fault_is_the_encoders_alone(healthy: Healthy, sources: Sources, tmp_path: Path) -> None:
    broken = seed(healthy("perceiver", "fp32"), tmp_path / "b", "encoder", constant("Add", 1, lambda x: x * 1.01))
    growth = grow(broken, sources["perceiver"])
    assert growth.encoder_share == pytest.approx(1.0, abs=1e-3)
    assert max(growth.teacher_forced) < 1e-6 < min(growth.chained)


def test_a_blocks_fault_is_not_the_encoders(healthy: Healthy, sources: Sources, tmp_path: Path) -> None:
    edit = constant("1.mlp.2/Add", 1, lambda x: x * np.float32(1.01))
    growth = grow(seed(healthy("perceiver", "fp32"), tmp_path / "b", BLOCK, edit), sources["perceiver"])
    assert growth.encoder_share < 1e-3
    assert min(growth.teacher_forced) > 1e-5
    assert growth.chained[-1] > growth.chained[1] > growth.chained[0]


def test_nothing_grows_where_nothing_repeats(healthy: Healthy) -> None:
    with open_session(healthy("loud", "fp32"), threads=1) as session:
        assert measure_growth(session, layer(0).cut, layer(0).golden) == ()


def test_growth_over_the_layers_of_a_trunk_that_runs_once(tmp_path: Path) -> None:
    """A fault in the third layer is in the third layer's own error, and in all that follows."""
    source = trunk()
    export_bundle(source, tmp_path / "b", "fp16", rules=())
    edit = constant("2.mlp.2/Add", 1, lambda x: x * np.float16(1.05))
    for path in (tmp_path / "b", seed(tmp_path / "b", tmp_path / "broken", "layer", edit)):
        with open_session(path, threads=1) as session:
            (growth,) = measure_layers(session, source.cut, source.golden)
        assert (growth.component, growth.over, len(growth.chained)) == ("layer", "layers", 5)
        assert growth.chained[0] == growth.amplified[0] == 0.0  # the feeds themselves are exact
        assert max(growth.amplified) < 1e-6
        alone = growth.teacher_forced
        assert all(1e-5 < alone[i] < 1e-3 for i in (0, 1, 3))
        assert (alone[2] > 2e-3) == (path.name == "broken")
        assert (growth.chained[3] > 2e-3) == (path.name == "broken")


@pytest.fixture
def report() -> GrowthReport:
    growth = ErrorGrowth("block", "latents", "runs", (1e-3, 2e-3, 3e-3), (1e-3, 1e-3), (1e-3, 1e-3, 1e-3))
    return GrowthReport("b", "fp16", "onnxruntime", 1, (growth,))


def test_curves_as_json_and_as_pictures(report: GrowthReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for suffix in ("json", "svg", "png"):
        write_growth(report, tmp_path / f"growth.{suffix}")
    assert json.loads((tmp_path / "growth.json").read_text())["growth"][0]["chained"] == [1e-3, 2e-3, 3e-3]
    assert "</svg>" in (tmp_path / "growth.svg").read_text()
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.convert("L").getextrema()[0] < 100  # something was drawn on white


def test_another_suffix_is_refused(report: GrowthReport, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a file name that ends in \.json, \.svg, \.png"):
        write_growth(report, tmp_path / "growth.pdf")
