from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from torch import nn

from perceiver_deploy.models.attention import SelfAttentionLayer
from perceiver_deploy.models.config import ProcessorConfig
from perceiver_exporters import export
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.reference import Reference
from perceiver_exporters.samples import make_samples
from perceiver_exporters.targets import TARGETS
from perceiver_exporters.tolerance import measure, relative_l2
from perceiver_exporters.trace import SharedTraces
from perceiver_exporters.weights import samples_sha256
from perceiver_runtime import load_bundle, schema, verify
from perceiver_runtime.golden import load_golden
from perceiver_runtime.manifest import Manifest, Source
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Profile, Range, TensorSpec

from .conftest import Bundle, randomise

HERE = TARGETS["cpu"].precisions
IN = TensorSpec("x", "float32", ("batch", 12, 48))
OUT = TensorSpec("y", "float32", ("batch", 12, 48))


def single_layer(seed: int) -> Blueprint:
    """One self-attention layer, traced in a second."""
    layer: nn.Module = randomise(SelfAttentionLayer(48, ProcessorConfig(blocks=1, layers=1, heads=4)), seed)
    step = Step("layer", {"x": "x"}, {"y": "y"}, "encode")
    cut = Cut(
        (Component("layer", layer, (IN,), (OUT,)),),
        Pipeline((IN,), (OUT,), (step,)),
        Profile("default", {"batch": Range(1, 1, 8)}),
    )
    random = np.random.default_rng(seed)
    feeds = tuple({"x": random.standard_normal((4, 12, 48), dtype=np.float32)} for _ in range(3))
    return Blueprint(Source("layer", "toy", "", {}, pretrained=False), cut, feeds[:1], feeds[1:])


@pytest.mark.parametrize("seed", range(10))
def test_a_healthy_bundle_passes(seed: int, tmp_path: Path) -> None:
    blueprint = single_layer(seed)
    traces = SharedTraces()
    for precision in HERE:
        export.export_bundle(blueprint, tmp_path / precision, precision, tracer=traces)
        for report in verify(tmp_path / precision).reports:
            assert report.passed, (precision, report)


def swap_query_and_key(graph: ir.Model) -> ir.Model:
    nodes = {str(node.name): node for node in graph.graph}
    for suffix in ("MatMul", "Add"):
        query, key = nodes[f"0.attention.query/{suffix}"], nodes[f"0.attention.key/{suffix}"]
        ours, theirs = query.inputs[1], key.inputs[1]
        query.replace_input_with(1, theirs)
        key.replace_input_with(1, ours)
    return graph


@pytest.mark.parametrize("precision", HERE)
def test_swapped_weights_fail_on_the_component_that_has_them(
    precision: str,
    bundle: Bundle,
    traced: dict[str, ir.Model],
) -> None:
    healthy, _ = bundle(precision)
    assert verify(healthy).passed
    broken = {**traced, "processor_block": swap_query_and_key(traced["processor_block"].clone())}
    path, _ = bundle(precision, overwrite=True, tracer=lambda component, *_: broken[component.name].clone())
    failed = {r.component for r in verify(path).reports if not r.passed}
    assert failed == {"processor_block", "pipeline"}


def test_every_golden_tensor_has_a_tolerance_that_says_where_it_comes_from(bundle: Bundle) -> None:
    _, manifest = bundle("fp16")
    tensors = [(t.component, t.tensor) for t in manifest.tolerances]
    assert tensors == [
        ("encoder", "latents"),
        ("processor_block", "latents_out"),
        ("decoder", "logits"),
        ("pipeline", "latents"),
        ("pipeline", "logits"),
    ]
    fp16 = PRECISIONS["fp16"]
    for entry in manifest.tolerances:
        assert entry.rel_l2 == max(fp16.margin * entry.noise, fp16.floor)
        assert "2 golden samples (sha256 " in entry.provenance
        assert "times 3," in entry.provenance
        assert entry.derivation is not None
        assert (entry.derivation.samples, entry.derivation.margin) == (2, fp16.margin)
        assert "emulated in fp16 to FP64" in entry.derivation.method


def test_a_derivation_names_the_inputs_by_their_hash(bundle: Bundle) -> None:
    path, manifest = bundle("fp32")
    golden = load_golden(load_bundle(path))
    for entry in load_bundle(path).manifest.tolerances:
        inputs = [s.feeds if entry.component == "pipeline" else s.components[entry.component].inputs for s in golden]
        assert entry.derivation is not None
        assert entry.derivation.inputs_sha256 == samples_sha256(inputs)
    hashes = {t.derivation.inputs_sha256 for t in manifest.tolerances if t.derivation}
    assert len(hashes) == 3  # the encoder reads the feeds themselves


def test_a_bundle_of_before_derivations_still_opens(bundle: Bundle) -> None:
    _path, manifest = bundle("fp32")
    without = tuple(replace(entry, derivation=None) for entry in manifest.tolerances)
    content = schema.encode(replace(manifest, tolerances=without))
    for entry in content["tolerances"]:
        del entry["derivation"]
    assert schema.decode(Manifest, content).tolerances == without


def test_noise_grows_as_precision_falls(blueprint: Blueprint) -> None:
    golden = make_samples(blueprint.cut, blueprint.golden)
    noise = [
        measure(blueprint.cut, golden, p.emulate(blueprint.cut, blueprint.calibration, "cpu"))["pipeline", "logits"]
        for p in PRECISIONS.values()
    ]
    assert noise[0] < 1e-6 < 1e-4 < noise[1] < 3e-3 < noise[2] < noise[3] < 0.1


def test_emulation_leaves_the_reference_as_it_was(blueprint: Blueprint) -> None:
    before = Reference(blueprint.cut).run(blueprint.golden[0]).values["logits"]
    for precision in PRECISIONS.values():
        scope = precision.emulate(blueprint.cut, blueprint.calibration, "cpu")
        Reference(blueprint.cut, scope=scope).run(blueprint.golden[0])
    assert np.array_equal(before, Reference(blueprint.cut).run(blueprint.golden[0]).values["logits"])


def test_relative_l2_of_zeros() -> None:
    zeros = np.zeros(3, np.float32)
    assert relative_l2(zeros, zeros) == 0.0
    assert relative_l2(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)
