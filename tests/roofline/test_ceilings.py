"""Ceilings: the form of measured ones, at sizes that take no time, and those of data sheets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_bundles

from perceiver_exporters.roofline import ceilings, probes
from perceiver_exporters.roofline.ceilings import board_ceilings, largest_cache, measure_ceilings
from perceiver_exporters.roofline.points import session_roofline
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime import open_session
from perceiver_runtime.errors import UnavailableError, UsageError


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {"ROWS": (8,), "WIDTH": 32, "SECONDS": 0.0, "COPIED_BYTES": 1 << 16}.items():
        monkeypatch.setattr(probes, name, value)
    monkeypatch.setattr(ceilings, "largest_cache", lambda: 1 << 12)
    ceilings._measured.cache_clear()
    yield
    ceilings._measured.cache_clear()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_rates_are_measured_through_the_backend_once(backend: str) -> None:
    found = measure_ceilings(backend, 1, ("int8", "fp32"))
    assert set(found.flops_per_s) == {"fp32", "int8"}
    assert all(rate > 0 for rate in (*found.flops_per_s.values(), found.bytes_per_s, found.call_s))
    assert found.node_s >= 0
    assert found.measurement is not None
    assert (found.measurement.backend, found.measurement.threads) == (backend, 1)
    assert backend in found.measurement.versions
    assert found.measurement.date.endswith("+00:00")
    assert measure_ceilings(backend, 1, ["fp32", "int8"]) is found


def test_half_precision_counts_at_the_rate_that_the_backend_has_for_it() -> None:
    assert measure_ceilings("onnxruntime", 1, ["fp16"]).flops_per_s["fp16"] > 0


def test_what_can_not_be_measured_here_is_refused() -> None:
    with pytest.raises(UnavailableError, match=r"ceilings of backend tensorrt: .*board_ceilings"):
        measure_ceilings("tensorrt", None)
    with pytest.raises(UsageError, match="ceilings: expected types of fp32, fp16, bf16, int8, got int4"):
        measure_ceilings("onnxruntime", 1, ["int4"])


def test_those_of_a_board_name_their_data_sheet() -> None:
    (board, *_) = TARGETS["jetson-orin"].boards
    found = board_ceilings(board)
    assert found.measurement is None
    assert found.source == f"{board.name}: {board.source}"
    assert (found.flops_per_s, found.bytes_per_s) == (board.peak, board.bandwidth)


def test_the_largest_cache_is_read_from_the_system(tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "1M", "32768K")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}/size").write_text(f"{size}\n")
    assert largest_cache(tmp_path) == 32 << 20
    assert largest_cache(tmp_path / "none") == 0


def test_a_session_is_compared_with_the_rates_of_its_own_types(tmp_path: Path) -> None:
    path = tiny_bundles.write(tmp_path / "bundle", tiny_bundles.full_model(), tiny_bundles.feeds())
    with open_session(path, "onnxruntime", threads=1) as session:
        milliseconds = {component.name: 1.0 for component in session.manifest.components}
        found = session_roofline(session, milliseconds, {"batch": 2})
    assert set(found.ceilings.flops_per_s) == {"fp32"}
    assert [point.component for point in found.points] == [work.component for work in found.work]
    assert all(point.seconds == 1e-3 and point.share == point.ideal / 1e-3 for point in found.points)
