"""Every seeded fault is caught by verify on its component, and blamed by bisect on its node."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from perceiver_deploy.api.verify import verify
from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose.bisection import bisect
from perceiver_exporters.diagnose.bisection.replay import run_replay
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_runtime import load_bundle

from .conftest import Healthy
from .seeded import BLOCK, FAULTS, Fault, reseal, seed, seed_manifest, truncate

Sources = Mapping[str, Blueprint]
Traces = Mapping[str, SharedTraces]


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_seeded_fault_is_caught_and_blamed(
    name: str, healthy: Healthy, sources: Sources, traces: Traces, tmp_path: Path
) -> None:
    fault = FAULTS[name]
    broken = seed(healthy(fault.subject, fault.precision), tmp_path / "broken", fault.component, fault.edit)
    _check_verify(broken, fault)
    found = bisect(broken, sources[fault.subject], tracer=traces[fault.subject], replays=tmp_path / "replays")
    assert [(diagnosis.component, diagnosis.kind) for diagnosis in found.diagnoses] == [(fault.component, "node")]
    (diagnosis,) = found.diagnoses
    assert diagnosis.node in fault.nodes
    assert diagnosis.replay
    assert not any(report.passed for report in run_replay(Path(diagnosis.replay)))


def _check_verify(broken: Path, fault: Fault) -> None:
    """The right component and no other fails, by its numbers or by the rule that it breaks."""
    verification = verify(broken)
    assert not verification.passed
    failed = {report.component for report in verification.parity.reports if not report.passed}
    assert failed | {"pipeline"} == {fault.component, "pipeline"} or (fault.rule and not failed)
    assert {(breach.component, breach.rule) for breach in verification.breaches} == (
        {(fault.component, fault.rule)} if fault.rule else set()
    )
    assert {breach.node for breach in verification.breaches} <= set(fault.nodes)


def test_an_fp32_graph_labelled_int8_is_no_int8(
    healthy: Healthy, sources: Sources, traces: Traces, tmp_path: Path
) -> None:
    """Its numbers are better than they should be: the label is what is wrong."""
    broken = tmp_path / "broken"
    shutil.copytree(healthy("perceiver", "int8"), broken)
    shutil.copy(healthy("perceiver", "fp32") / f"onnx/{BLOCK}.onnx", broken / "onnx")
    reseal(load_bundle(healthy("perceiver", "int8")).manifest, broken)
    verification = verify(broken)
    assert verification.parity.passed
    assert [(breach.component, breach.rule) for breach in verification.breaches] == [(BLOCK, "label")]
    found = bisect(broken, sources["perceiver"], tracer=traces["perceiver"])
    assert [(diagnosis.component, diagnosis.node, diagnosis.op_type) for diagnosis in found.diagnoses] == [
        (BLOCK, "0.attention.query/MatMul", "MatMul")
    ]


def test_a_repetition_that_is_left_out_is_the_pipelines_fault(
    healthy: Healthy, sources: Sources, traces: Traces, tmp_path: Path
) -> None:
    broken = seed_manifest(healthy("perceiver", "fp32"), tmp_path / "broken", truncate)
    failed = {report.component for report in verify(broken).parity.reports if not report.passed}
    assert failed == {"pipeline"}
    found = bisect(broken, sources["perceiver"], tracer=traces["perceiver"])
    assert [(diagnosis.component, diagnosis.kind, diagnosis.why) for diagnosis in found.diagnoses] == [
        (BLOCK, "step", "repeat is 2; its source has 3")
    ]


def test_a_smoothed_and_rewritten_graph_is_searched_like_any_other(
    sources: Sources, traces: Traces, tmp_path: Path
) -> None:
    """Scale migration and rewrite rules give values other scales and names; the node is found all the same."""
    tracer = traces["perceiver"]
    export_bundle(sources["perceiver"], tmp_path / "b", "int8", tracer=tracer)
    assert load_record(tmp_path / "b" / PATH)[1].smoothed
    for name in ("missing bias", "dropped residual", "softmax over queries"):
        fault = FAULTS[name]
        broken = seed(tmp_path / "b", tmp_path / name, fault.component, fault.edit)
        found = bisect(broken, sources["perceiver"], tracer=tracer)
        assert [(diagnosis.component, diagnosis.node) for diagnosis in found.diagnoses] == [(BLOCK, fault.nodes[0])]


def test_a_bf16_graph_is_searched_without_bf16_kernels(sources: Sources, traces: Traces, tmp_path: Path) -> None:
    tracer = traces["perceiver"]
    export_bundle(sources["perceiver"], tmp_path / "b", "bf16", "jetson-orin", tracer=tracer, rules=())
    healthy = bisect(tmp_path / "b", sources["perceiver"], backend="onnxruntime-exact", tracer=tracer)
    assert healthy.passed
    assert healthy.compared > 100
    fault = FAULTS["softmax over queries"]
    broken = seed(tmp_path / "b", tmp_path / "broken", fault.component, fault.edit)
    found = bisect(broken, sources["perceiver"], backend="onnxruntime-exact", tracer=tracer, replays=tmp_path / "r")
    assert [(diagnosis.component, diagnosis.node) for diagnosis in found.diagnoses] == [(BLOCK, fault.nodes[0])]
    assert not any(report.passed for report in run_replay(Path(found.diagnoses[0].replay)))


def test_without_the_source_blame_ends_at_the_component(healthy: Healthy, tmp_path: Path) -> None:
    fault = FAULTS["tanh for erf"]
    broken = seed(healthy(fault.subject, fault.precision), tmp_path / "broken", fault.component, fault.edit)
    found = bisect(broken, None)
    assert [(diagnosis.component, diagnosis.kind, diagnosis.tensor) for diagnosis in found.diagnoses] == [
        (BLOCK, "component", "latents_out")
    ]
    assert found.compared == 0


def test_without_calibration_data_blame_ends_at_the_component(
    sources: Sources, healthy: Healthy, tmp_path: Path
) -> None:
    fault = FAULTS["stale calibration"]
    broken = seed(healthy(fault.subject, fault.precision), tmp_path / "broken", fault.component, fault.edit)
    found = bisect(broken, replace(sources[fault.subject], calibration=()))
    assert [(diagnosis.component, diagnosis.kind) for diagnosis in found.diagnoses] == [(fault.component, "component")]
    assert bisect(healthy(fault.subject, fault.precision), replace(sources[fault.subject], calibration=())).passed
