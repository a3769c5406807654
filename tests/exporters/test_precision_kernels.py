"""Proof from the graph that ONNX Runtime optimised: what it really runs, whatever the stored graph says."""

from __future__ import annotations

import dataclasses
import platform

import onnx_ir as ir
import pytest

from perceiver_exporters.component import Blueprint
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision.proof.kernels import kernel_shares, prove_kernels
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.errors import CheckError

from .conftest import Bundle
from .test_precision import rewrite

CPU = TARGETS["cpu"]


def prove(blueprint: Blueprint, graph: ir.Model, precision: str) -> dict[str, float]:
    component = blueprint.cut.component(str(graph.graph.name))
    return prove_kernels(SizedGraph(graph, component.inputs, blueprint.cut.profile), precision, CPU, frozenset())


@pytest.mark.parametrize(("precision", "runs"), [("fp32", "fp32"), ("int8", "int8"), ("fp16", "fp32")])
def test_what_runs(blueprint: Blueprint, graphs: dict[str, ir.Model], precision: str, runs: str) -> None:
    """FP16 is widened by a processor without FP16 arithmetic, and the proof says so."""
    for graph in graphs.values():
        assert prove(blueprint, rewrite(blueprint, graph, precision), precision) == {runs: 1.0}


def test_an_fp32_graph_that_is_called_int8_fails(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    with pytest.raises(CheckError, match=r"decoder: expected ONNX Runtime to run 99% .* int8 kernels, found 0\.0%"):
        prove(blueprint, graphs["decoder"], "int8")


def test_an_int8_graph_that_runs_in_floating_point_fails(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    """At a fixed batch ONNX Runtime makes a Gemm of each product and its bias, and has no integer one for these."""
    quantized = rewrite(blueprint, graphs["processor_block"], "int8")
    quantized.graph.inputs[0].shape = ir.Shape((4, 16, 64))
    with pytest.raises(CheckError, match=r"in int8 kernels, found 0\.0% \(fp32 100\.0%\)"):
        prove(blueprint, quantized, "int8")


def test_kept_layers_and_constants_are_not_counted(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    graph = graphs["decoder"]
    component = blueprint.cut.component("decoder")
    every = {str(node.name) for node in graph.graph}
    assert kernel_shares(SizedGraph(graph, component.inputs, blueprint.cut.profile), every) == {}


def test_targets_with_engines_are_not_proven_by_this_processor(
    blueprint: Blueprint, graphs: dict[str, ir.Model]
) -> None:
    component = blueprint.cut.component("decoder")
    sized = SizedGraph(graphs["decoder"], component.inputs, blueprint.cut.profile)
    assert prove_kernels(sized, "int8", TARGETS["rtx"], frozenset()) == {}


def test_a_widened_precision_runs_in_fp32_or_its_own_kernels_and_no_others(
    blueprint: Blueprint, graphs: dict[str, ir.Model]
) -> None:
    quantized = rewrite(blueprint, graphs["decoder"], "int8")
    with pytest.raises(CheckError, match=r"run 100% .* in fp16 or fp32 kernels, found 0\.0% \(int8 100\.0%\)"):
        prove(blueprint, quantized, "fp16")


def test_a_threshold_of_the_target_decides(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    component = blueprint.cut.component("decoder")
    half = rewrite(blueprint, graphs["decoder"], "fp16")
    strict = dataclasses.replace(CPU, widened=())
    with pytest.raises(CheckError, match=r"run 100% .* fp16 kernels, found 0\.0%"):
        prove_kernels(SizedGraph(half, component.inputs, blueprint.cut.profile), "fp16", strict, frozenset())


def test_the_report_names_the_kernels(bundle: Bundle) -> None:
    path, _ = bundle("int8")
    assert all(entry.kernels == {"int8": 1.0} for entry in load_record(path / PATH))
    assert "| int8 100.0% |" in (path / "README.md").read_text()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors have FP16 kernels")
def test_the_report_says_that_fp16_is_widened(bundle: Bundle) -> None:
    path, _ = bundle("fp16")
    said = "computed in fp32 100.0%: ONNX Runtime has no FP16 kernels here"
    assert all(entry.run_in("fp16") == said for entry in load_record(path / PATH))
    assert said in (path / "README.md").read_text()
