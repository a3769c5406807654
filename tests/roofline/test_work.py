"""FLOPs and bytes of a bundle's components, against counts by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_bundles

from perceiver_exporters.roofline.ceilings import Ceilings
from perceiver_exporters.roofline.points import roofline
from perceiver_exporters.roofline.work import Work, work_of
from perceiver_runtime import load_bundle
from perceiver_runtime.errors import UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_bundles.write(tmp_path / "bundle", tiny_bundles.full_model(), tiny_bundles.feeds())


def counted(path: Path, **sizes: int) -> dict[str, Work]:
    with load_bundle(path) as bundle:
        return {work.component: work for work in work_of(bundle, sizes)}


def test_products_of_a_repeated_block_count_for_each_call(path: Path) -> None:
    block = counted(path)["block"]
    assert block.calls == tiny_bundles.REPEAT
    assert block.flops == tiny_bundles.REPEAT * 2 * 5 * 6 * 6  # latents (1, 5, 6) by (6, 6)
    assert block.flops_by_type == {"fp32": block.flops}
    assert block.weighted_flops == block.flops
    assert block.weights == 4 * (36 + 6)
    assert block.boundary == tiny_bundles.REPEAT * 4 * 2 * 5 * 6


def test_weights_are_read_once_where_they_fit_the_cache(path: Path) -> None:
    block = counted(path)["block"]
    assert block.bytes_moved(cache=block.weights) == block.weights + block.boundary
    assert block.bytes_moved() == block.calls * block.weights + block.boundary
    assert block.bytes_unfused() == block.calls * block.weights + block.boundary + block.intermediates


def test_intermediates_are_written_and_read(path: Path) -> None:
    """MatMul, Add and Tanh each read and write 30 numbers; the first input and the last output are the boundary."""
    assert counted(path)["block"].intermediates == tiny_bundles.REPEAT * 4 * (6 - 2) * 30


@pytest.mark.parametrize("symbol", ["batch", "keys", "queries"])
def test_sizes_are_those_of_the_run(path: Path, symbol: str) -> None:
    assert counted(path, batch=4)["block"].flops == 4 * counted(path)["block"].flops
    assert counted(path, queries=20)["query"].flops == 2 * counted(path)["query"].flops
    with pytest.raises(UsageError, match=f"dimension '{symbol}': this bundle takes 1 to .*, got 1000"):
        counted(path, **{symbol: 1000})


def test_an_unknown_dimension_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="dimension 'batches': this bundle has batch, keys, queries"):
        counted(path, batches=1)


def test_chunks_add_up_to_the_whole(path: Path) -> None:
    """10 queries in chunks of 4, 4 and 2: the values that all chunks read count for each."""
    query = counted(path)["query"]
    assert query.calls == 3
    assert query.flops == counted(path, queries=5)["query"].flops * 2


def work(**changes: object) -> Work:
    given = {"component": "block", "precision": "fp32", "calls": 2, "nodes": 10, "flops": 4000}
    given |= {"flops_by_type": {"fp32": 4000}, "weighted_flops": 4000, "weights": 100, "boundary": 200}
    return Work(**{**given, "intermediates": 500, **changes})  # type: ignore[arg-type]


CEILINGS = Ceilings({"fp32": 1000.0, "int8": 4000.0}, 100.0, "test")


def test_a_point_names_the_bound_that_takes_longest() -> None:
    (point,) = roofline([work()], {"block": 10_000.0}, CEILINGS)
    assert (point.ideal, point.bound, point.share) == (4.0, "compute", 0.4)  # 4000 FLOP against 400 bytes
    assert (point.intensity, point.achieved, point.achieved_bytes, point.ceiling) == (10.0, 400.0, 40.0, 1000.0)
    (point,) = roofline([work(weights=700)], {"block": 32_000.0}, CEILINGS)
    assert (point.ideal, point.bound, point.share) == (16.0, "memory", 0.5)
    assert point.ceiling == 250.0


def test_each_type_counts_at_its_own_rate() -> None:
    (point,) = roofline([work(flops_by_type={"fp32": 2000, "int8": 2000})], {"block": 5000.0}, CEILINGS)
    assert point.ideal == 4.0  # memory: 2.5 s of products
    mixed = work(flops_by_type={"fp32": 2000, "int8": 2000}, boundary=0, weights=50)
    assert roofline([mixed], {"block": 5000.0}, CEILINGS)[0].ideal == 2.5


def test_starting_calls_can_be_the_bound() -> None:
    slow = Ceilings({"fp32": 1e9}, 1e9, "test", call_s=1e-3, node_s=1e-5)
    assert roofline([work()], {"block": 3.0}, slow)[0].bound == "overhead"


def test_missing_latencies_and_rates_are_refused() -> None:
    with pytest.raises(UsageError, match="expected milliseconds of block, got None"):
        roofline([work()], {}, CEILINGS)
    with pytest.raises(UsageError, match="component block: expected ceilings for fp16, got fp32, int8"):
        roofline([work(flops_by_type={"fp16": 4000})], {"block": 1.0}, CEILINGS)
