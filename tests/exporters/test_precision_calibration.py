"""Calibration: histograms that do not depend on order, three methods, a cache, and a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from perceiver_exporters.component import Blueprint
from perceiver_exporters.precision.calibration import METHODS, Observed
from perceiver_exporters.precision.calibration import calibrate as calibration
from perceiver_exporters.precision.calibration.histogram import HALF, Histogram
from perceiver_exporters.precision.calibration.store import cache_directory
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_runtime.errors import CheckError, UsageError

from .conftest import Bundle

calibrate = calibration.calibrate


def filled(values: np.ndarray, pieces: int = 1) -> Histogram:
    histogram = Histogram()
    for piece in np.array_split(values, pieces):
        histogram.add(piece)
    return histogram


def same(a: Histogram, b: Histogram) -> bool:
    return (a.limit, a.low, a.high) == (b.limit, b.low, b.high) and np.array_equal(a.counts, b.counts)


def test_a_histogram_does_not_depend_on_the_order_of_its_values() -> None:
    values = np.random.default_rng(0).laplace(size=20_000).astype(np.float32) * 37
    whole, ascending, descending = filled(values), filled(np.sort(values), 50), filled(np.sort(values)[::-1], 50)
    assert same(whole, ascending)
    assert same(whole, descending)
    assert whole.counts.sum() == len(values)
    edges = (np.arange(2 * HALF + 1) - HALF) * whole.width
    assert np.array_equal(np.histogram(values.astype(np.float64), edges)[0], whole.counts)


def test_methods_on_a_distribution_with_outliers() -> None:
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    values[0] = 100.0
    bounds = {name: method(filled(values)) for name, method in METHODS.items()}
    assert bounds["minmax"] == (pytest.approx(values.min()), 100.0)
    expected = np.quantile(values, [5e-5, 1 - 5e-5])
    np.testing.assert_allclose(bounds["percentile"], expected, atol=2 * filled(values).width)
    assert 2.5 < bounds["entropy"][1] < 20


@pytest.mark.parametrize("method", list(METHODS))
def test_zero_is_always_in_the_range(method: str) -> None:
    positive = filled(np.linspace(3, 4, 1000, dtype=np.float32))
    low, high = METHODS[method](positive)
    assert low == 0.0
    assert 3.9 < high <= 4.0
    assert METHODS[method](filled(np.zeros(10, np.float32))) == (0.0, 0.0)


def test_many_exact_zeros_do_not_narrow_the_entropy_range() -> None:
    values = np.maximum(np.random.default_rng(0).standard_normal(1_000_000), 0).astype(np.float32)
    assert METHODS["entropy"](filled(values))[1] > 3


def test_a_tensor_divided_per_channel_has_the_range_of_its_channels() -> None:
    observed = Observed()
    values = np.random.default_rng(0).standard_normal((2, 50, 3)).astype(np.float32) * [1, 10, 0.1]
    for piece in np.array_split(values.astype(np.float32), 5, axis=1):
        observed.see(piece, "x")
    divisor = np.array([1, 8, 0.125], np.float32)
    scaled = values.astype(np.float32) / divisor
    assert observed.bounds("minmax", divisor) == (pytest.approx(scaled.min()), pytest.approx(scaled.max()))
    np.testing.assert_array_equal(observed.peaks, np.abs(values.astype(np.float32)).max(axis=(0, 1)))


def test_infinite_activations_are_refused() -> None:
    with pytest.raises(CheckError, match="layer has NaN or infinite values"):
        Observed().see(np.array([1.0, np.inf], np.float32), "layer")


def test_an_interrupted_calibration_goes_on(
    blueprint: Blueprint,
    traced: dict[str, ir.Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    progress: list[str],
) -> None:
    """After the first sample the process dies; the next run reads only the second, to the same statistics."""
    monkeypatch.setattr(calibration, "SAVE_SECONDS", -1.0)
    samples = blueprint.calibration
    broken = (samples[0], {"pixel_values": samples[1]["pixel_values"][0]})  # wrong rank: the run fails there
    monkeypatch.setattr(calibration, "samples_sha256", lambda _: "the same samples")
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the module raises
        calibrate(blueprint.cut, traced, broken, tmp_path)
    progress.clear()
    resumed = calibrate(blueprint.cut, traced, samples, tmp_path)
    assert progress == ["calibration: samples 2 to 2"]
    whole = calibrate(blueprint.cut, traced, samples)
    for name, statistics in whole.items():
        assert resumed[name].samples == 2
        for kind in ("tensors", "sites"):
            expected, got = getattr(statistics, kind), getattr(resumed[name], kind)
            assert expected.keys() == got.keys()
            assert all(same(expected[key].histogram, got[key].histogram) for key in expected)


def test_statistics_are_cached_by_what_they_depend_on(
    blueprint: Blueprint, traced: dict[str, ir.Model], tmp_path: Path, progress: list[str]
) -> None:
    def run(graphs: dict[str, ir.Model], samples: object) -> str:
        progress.clear()
        calibrate(blueprint.cut, graphs, samples, tmp_path)  # type: ignore[arg-type]
        return progress[0].split(":")[1]

    samples = blueprint.calibration
    assert run(traced, samples) == " samples 1 to 2"
    assert "cached" in run(traced, samples)
    assert run(traced, samples[:1]) == " samples 1 to 1"
    changed = {name: graph.clone() for name, graph in traced.items()}
    changed["decoder"].graph.name = "another"
    assert run(changed, samples) == " samples 1 to 2"
    for path in (tmp_path / "calibration").iterdir():
        path.write_bytes(b"damaged")
    assert run(traced, samples) == " samples 1 to 2"


@pytest.mark.parametrize("where", ["ranges", "header"])
def test_a_cache_that_was_changed_is_warned_of_and_not_used(
    blueprint: Blueprint, traced: dict[str, ir.Model], tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """The file is whole, and its ranges are 40 times too wide."""
    samples = blueprint.calibration
    right = calibrate(blueprint.cut, traced, samples, tmp_path)
    assert not caplog.records
    for path in (tmp_path / "calibration").iterdir():
        with safe_open(path, framework="numpy") as file:
            metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata["statistics"])
        if where == "header":
            header["observed"] = [[k, n, *(40 * x for x in numbers)] for k, n, *numbers in header["observed"]]
        else:
            arrays = {n: a if n.endswith("/counts") else 40 * a for n, a in arrays.items()}
        save_file(arrays, path, {**metadata, "statistics": json.dumps(header)})
    found = calibrate(blueprint.cut, traced, samples, tmp_path)
    assert "is damaged, its statistics are taken again" in caplog.text
    for name, statistics in right.items():
        for key, site in statistics.sites.items():
            assert same(found[name].sites[key].histogram, site.histogram)
    caplog.clear()
    calibrate(blueprint.cut, traced, samples, tmp_path)
    assert not caplog.records


def test_a_cache_that_can_not_be_written_is_warned_of(
    blueprint: Blueprint, graphs: dict[str, ir.Model], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    samples = blueprint.calibration[:2]
    without = calibrate(blueprint.cut, graphs, samples)
    found = calibrate(blueprint.cut, graphs, samples, tmp_path / "file" / "cache")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not kept for the next export" in caplog.text
    assert {name: each.samples for name, each in found.items()} == {n: e.samples for n, e in without.items()}


def test_without_a_home_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert cache_directory({}) is None


def test_where_the_cache_lies(tmp_path: Path) -> None:
    assert cache_directory({"HOME": "/home/a"}) == Path("/home/a/.cache/perceiver-deploy")
    assert cache_directory({"HOME": "/home/a", "XDG_CACHE_HOME": "/x"}) == Path("/x/perceiver-deploy")
    assert cache_directory({"PERCEIVER_CACHE_DIR": str(tmp_path)}) == tmp_path
    assert cache_directory({"PERCEIVER_CACHE_DIR": str(tmp_path), "PERCEIVER_NO_CACHE": "1"}) is None


def test_methods_are_chosen_per_export_and_per_component(bundle: Bundle) -> None:
    options = QuantizationOptions("percentile", {"decoder": "entropy"})
    path, _ = bundle("int8", quantization=options)
    report = {entry.component: entry.calibration for entry in load_record(path / PATH)}
    assert report == {"encoder": "percentile", "processor_block": "percentile", "decoder": "entropy"}


@pytest.mark.parametrize(
    ("precision", "options", "message"),
    [
        ("int8", QuantizationOptions("median"), "expected minmax, percentile, entropy, got median"),
        ("int8", QuantizationOptions("minmax", {"head": "entropy"}), "expected components of encoder"),
        ("fp16", QuantizationOptions("entropy"), "fp16 is not calibrated"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    bundle: Bundle, precision: str, options: QuantizationOptions, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        bundle(precision, quantization=options)
