"""REAL builds with TensorRT-RTX, which needs no GPU: every component of every family builds at each precision."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import onnx_ir as ir
import pytest
from engines.rtx import build, released, rewritten
from small_models import SMALL

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.released import RELEASED
from perceiver_exporters.graph import has_constant_weight, products
from perceiver_exporters.targets import TARGETS
from perceiver_runtime.errors import BuildError, UsageError
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensorrt.progress import BuildProgress

RTX = TARGETS["rtx"].engines
TYPES = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
RECURRENT = ("LSTM", "GRU", "RNN")


@pytest.fixture(scope="module")
def trt() -> ModuleType:
    return load_tensorrt("tensorrt_rtx")


def test_every_family_has_a_small_model() -> None:
    assert set(SMALL) == set(FAMILIES)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("family", [pytest.param(f, marks=pytest.mark.xdist_group(f"rtx-{f}")) for f in SMALL])
def test_every_component_builds(trt: ModuleType, family: str, precision: str, tmp_path: Path) -> None:
    for name, graph in rewritten(family, precision):
        path = tmp_path / f"{name}.onnx"
        ir.save(graph, path)
        built = build(trt, family, name, path)
        assert len(built.plan) == built.sidecar.engine_bytes > 1000
        nodes = list(products(graph.graph))
        weighted = sum(map(has_constant_weight, nodes))
        found = dict(built.sidecar.products)
        typed = sum(node.inputs[0] is not None and node.inputs[0].dtype == TYPES.get(precision) for node in nodes)
        expected = weighted if precision == "int8" else typed
        if any(node.op_type in RECURRENT for node in graph.graph):  # its products come on top, in a type of their own
            assert found.get(precision, 0) >= expected, name
        else:
            assert found.get(precision, 0) == expected, name
            assert sum(found.values()) == len(nodes), name


def test_one_engine_for_all_architectures(trt: ModuleType, tmp_path: Path) -> None:
    assert RTX is not None
    for precision in ("fp16", "int8"):
        name, graph = next(rewritten("patch-classifier", precision))
        ir.save(graph, tmp_path / "graph.onnx")
        built = build(trt, "patch-classifier", name, tmp_path / "graph.onnx", RTX.capabilities(precision))
        assert built.sidecar.compute_capabilities == RTX.capabilities(precision)
    assert "7.5" in RTX.capabilities("fp16")
    with pytest.raises(BuildError, match="FP32 GEMM is not supported"):
        build(trt, "patch-classifier", name, tmp_path / "graph.onnx", ("7.5",))


def test_builds_repeat(trt: ModuleType, tmp_path: Path) -> None:
    """Most builds are byte-identical, some of a busy machine are not (docs/tensorrt.md); all that we write is equal."""
    name, graph = next(rewritten("patch-classifier", "fp16"))
    ir.save(graph, path := tmp_path / "graph.onnx")
    builds = [build(trt, "patch-classifier", name, path) for _ in range(6)]
    assert Counter(built.plan for built in builds).most_common(1)[0][1] >= 2
    assert len({str(replace(b.sidecar, engine_sha256="", engine_bytes=0)) for b in builds}) == 1


def test_a_build_reports_progress_and_can_be_stopped(trt: ModuleType, tmp_path: Path) -> None:
    name, graph = next(rewritten("patch-classifier", "fp32"))
    ir.save(graph, path := tmp_path / "graph.onnx")
    steps: list[BuildProgress] = []
    build(trt, "patch-classifier", name, path, report=steps.append)
    assert len(steps) > 20
    assert all(1 <= step.step <= step.steps for step in steps)
    assert {step.depth for step in steps} >= {0, 1}
    stopped: list[BuildProgress] = []

    def interrupt(step: BuildProgress) -> None:
        stopped.append(step)
        if len(stopped) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(trt, "patch-classifier", name, path, report=interrupt)
    assert len(stopped) == 10


def test_unknown_architectures_are_refused(trt: ModuleType, tmp_path: Path) -> None:
    name, graph = next(rewritten("patch-classifier", "fp32"))
    ir.save(graph, path := tmp_path / "graph.onnx")
    with pytest.raises(UsageError, match=r"compute capability 8\.7: expected one of SM75"):
        build(trt, "patch-classifier", name, path, ("8.7",))


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_build(trt: ModuleType, name: str, precision: str, tmp_path: Path) -> None:
    """Random weights; INT8 is left to the small models, because calibrating these takes hours."""
    for built in released(trt, name, precision, tmp_path):
        assert set(built.sidecar.products) <= {precision}
