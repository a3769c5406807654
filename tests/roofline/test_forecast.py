"""Forecasts: ranges with their assumptions, for boards that nothing was measured on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_bundles
from click.testing import CliRunner

from perceiver_deploy.cli.main import group
from perceiver_exporters.roofline import forecast as module
from perceiver_exporters.roofline.forecast import OPTIMISTIC, PESSIMISTIC, boards, forecast, forecasts
from perceiver_exporters.roofline.work import Work, work_of
from perceiver_runtime import load_bundle
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import UsageError

ORIN = "AGX Orin 64GB"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forecast") / "bundle"
    return tiny_bundles.write(folder, tiny_bundles.full_model(), tiny_bundles.feeds())


@pytest.fixture
def bundle(path: Path) -> Iterator[Bundle]:
    with load_bundle(path) as loaded:
        yield loaded


def block(bundle: Bundle) -> Work:
    return next(work for work in work_of(bundle) if work.component == "block")


def test_every_board_has_a_range_for_what_its_target_computes_in(bundle: Bundle) -> None:
    found = forecasts(bundle)
    assert {each.board for each in found} == {board.name for _, board in boards()}
    assert {each.precision for each in found if each.board == ORIN} == {"fp32", "fp16", "int8"}
    for each in found:
        assert 0 < each.optimistic_s < each.pessimistic_s
        assert each.optimistic_s == sum(component.optimistic_s for component in each.components)
        assert [component.component for component in each.components] == [work.component for work in work_of(bundle)]
        assert each.kind == "forecast"
        assert sum("assumed, not measured" in sentence for sentence in each.assumptions) == 2
        assert each.fits


def test_a_component_takes_the_longer_of_products_and_bytes_and_starts_kernels(bundle: Bundle) -> None:
    board = next(board for _, board in boards() if board.name == ORIN)
    work, made = block(bundle), forecast(bundle, ORIN)
    found = next(each for each in made.components if each.component == "block")
    best = max(work.flops / board.peak["fp32"] / OPTIMISTIC.compute, work.bytes_moved() / board.bandwidth / 0.9)
    assert found.optimistic_s == pytest.approx(best + 3 * 1 * OPTIMISTIC.launch_s)  # 3 calls, 3 nodes in one kernel
    worst = max(work.flops / board.peak["fp32"] / PESSIMISTIC.compute, work.bytes_unfused() / board.bandwidth / 0.5)
    assert found.pessimistic_s == pytest.approx(worst + 3 * 3 * PESSIMISTIC.launch_s)
    assert found.bound == "overhead"


def test_more_rows_take_longer(bundle: Bundle) -> None:
    more = forecast(bundle, ORIN, sizes={"batch": 4})
    assert more.pessimistic_s > forecast(bundle, ORIN).pessimistic_s
    assert "batch 4; else typical sizes of the profile" in more.assumptions


def test_other_precisions_are_derived_from_fp32(bundle: Bundle) -> None:
    work = replace(block(bundle), flops=100, flops_by_type={"fp32": 100}, weighted_flops=80, weights=400)
    half = module._in_precision(work, "fp32", "fp16")
    assert (half.flops_by_type, half.weights, half.intermediates) == ({"fp16": 100}, 200, work.intermediates // 2)
    integers = module._in_precision(work, "fp32", "int8")
    assert (integers.flops_by_type, integers.weights) == ({"int8": 80, "fp32": 20}, 100)
    assert integers.intermediates == work.intermediates
    assert (
        "from graphs in fp32: products with a weight in int8, the rest in fp32"
        in forecast(bundle, ORIN, "int8").assumptions
    )


def test_a_forecast_that_would_be_a_guess_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"board 'AGX Orin': expected one of Orin Nano 8GB Super, .*did you mean"):
        forecast(bundle, "AGX Orin")
    with pytest.raises(UsageError, match="in fp8: target jetson-orin does not compute in fp8"):
        forecast(bundle, ORIN, "fp8")
    with pytest.raises(UsageError, match="in bf16: the target table has no rate of bf16 for it, but of fp32, fp16"):
        forecast(bundle, ORIN, "bf16")
    stored = replace(bundle, manifest=replace(bundle.manifest, precision="int8"))
    with pytest.raises(UsageError, match="the bundle is in int8: forecast that, or export it in fp32 or fp16"):
        forecast(stored, ORIN, "fp16")


def test_memory_that_a_board_lacks(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert forecast(bundle, ORIN).fits
    monkeypatch.setattr(module, "USABLE", 0.01)
    made = forecast(bundle, ORIN)
    assert made.memory > 0.01 * 64e9
    assert not made.fits


def test_the_command_says_that_nothing_was_measured(path: Path) -> None:
    shown = CliRunner().invoke(group, ["inspect", str(path), "--forecast"], standalone_mode=False)
    assert shown.exception is None
    words = " ".join(shown.stdout.split())
    assert "forecast of a run on boards that are not at hand; nothing was measured on them" in words
    assert "Assumptions: - products reach 30% to 80% of the board's peak" in words
    as_json = CliRunner().invoke(group, ["inspect", str(path), "--forecast", "--json"], standalone_mode=False)
    found = json.loads(as_json.stdout)
    assert {each["kind"] for each in found} == {"forecast"}
    assert all(each["assumptions"] and each["source"] for each in found)
