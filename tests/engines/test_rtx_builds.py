"""REAL builds with TensorRT-RTX, which needs no GPU: every component of every family builds at each precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import onnx_ir as ir
import pytest
from engines.progress import progress_to
from engines.rtx import components, expected_products, released, small
from factories.families import SMALL

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.released import RELEASED
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.errors import BuildError, UsageError
from perceiver_runtime.progress import Done
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensorrt.builder.build import BuiltEngine

RTX = TARGETS["rtx"].engines
RECURRENT = ("LSTM", "GRU", "RNN")


@pytest.fixture(scope="module")
def trt() -> ModuleType:
    return load_tensorrt("tensorrt_rtx")


def encoder(precision: str, folder: Path) -> Callable[..., BuiltEngine]:
    """Builds the patch classifier's encoder, from a graph that is saved once."""
    subject = small("patch-classifier")
    ir.save(subject.graphs(precision)["encoder"], path := folder / "graph.onnx")
    return lambda trt, *capabilities: subject.build(trt, "encoder", path, *capabilities)


def test_every_family_has_a_small_model() -> None:
    assert set(SMALL) == set(FAMILIES)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("family", [pytest.param(f, marks=pytest.mark.xdist_group(f"rtx-{f}")) for f in SMALL])
def test_every_component_builds(trt: ModuleType, family: str, precision: str, tmp_path: Path) -> None:
    total: Counter[str] = Counter()
    for graph, built in components(trt, small(family), precision, tmp_path):
        assert len(built.plan) == built.sidecar.engine_bytes > 1000
        expected, found = expected_products(graph, precision), Counter(built.sidecar.products)
        if any(node.op_type in RECURRENT for node in graph.graph):  # its products come on top, in a type of their own
            assert found[precision] >= expected[precision], graph.graph.name
        else:
            assert found == expected, graph.graph.name
        total += found
    assert total[precision] > total.total() / 2


def test_one_engine_for_all_architectures(trt: ModuleType, tmp_path: Path) -> None:
    assert RTX is not None
    for precision in ("fp16", "int8"):
        build = encoder(precision, tmp_path)
        assert build(trt, RTX.capabilities(precision)).sidecar.compute_capabilities == RTX.capabilities(precision)
    assert "7.5" in RTX.capabilities("fp16")
    with pytest.raises(BuildError, match="FP32 GEMM is not supported"):
        build(trt, ("7.5",))


def test_builds_repeat(trt: ModuleType, tmp_path: Path) -> None:
    """Most builds are byte-identical, some of a busy machine are not (docs/tensorrt.md); all that we write is equal."""
    build = encoder("fp16", tmp_path)
    builds = [build(trt) for _ in range(6)]
    assert Counter(built.plan for built in builds).most_common(1)[0][1] >= 2
    assert len({str(replace(b.sidecar, engine_sha256="", engine_bytes=0)) for b in builds}) == 1


def test_a_build_reports_progress_and_can_be_stopped(trt: ModuleType, tmp_path: Path) -> None:
    build = encoder("fp32", tmp_path)
    steps: list[Done] = []
    with progress_to(steps.append):
        build(trt)
    assert all(step.total is not None and 0 <= step.done <= step.total for step in steps)
    assert len(steps) >= 3
    assert any(step.done == step.total for step in steps)
    stopped: list[Done] = []

    def interrupt(step: Done) -> None:
        stopped.append(step)
        if len(stopped) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), progress_to(interrupt):
        build(trt)
    assert len(stopped) == 3


def test_unknown_architectures_are_refused(trt: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"compute capability 8\.7: expected one of SM75"):
        encoder("fp32", tmp_path)(trt, ("8.7",))


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_build(trt: ModuleType, name: str, precision: str, tmp_path: Path) -> None:
    assert RTX is not None
    total: Counter[str] = Counter()
    for graph, built in components(trt, released(name), precision, tmp_path, RTX.capabilities(precision)):
        assert Counter(built.sidecar.products) == expected_products(graph, precision), graph.graph.name
        total += Counter(built.sidecar.products)
    assert total[precision] > total.total() / 2
