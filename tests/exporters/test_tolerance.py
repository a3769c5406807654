from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from factories.weights import randomise
from torch import Tensor, nn

from perceiver_deploy.models.attention import SelfAttentionLayer
from perceiver_deploy.models.config import ProcessorConfig
from perceiver_exporters import export
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.ir.trace import SharedTraces, trace
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.reference import Reference
from perceiver_exporters.samples import make_samples
from perceiver_exporters.targets.target import TARGETS
from perceiver_exporters.tolerance import derive, measure
from perceiver_exporters.weights import samples_sha256
from perceiver_runtime import load_bundle, verify
from perceiver_runtime.errors import CheckError
from perceiver_runtime.format import schema
from perceiver_runtime.golden import load_golden
from perceiver_runtime.manifest import Manifest, Source
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Profile, Range, TensorSpec

from .conftest import Bundle

CPU_PRECISIONS = TARGETS["cpu"].precisions
IN = TensorSpec("x", "float32", ("batch", 12, 48))
OUT = TensorSpec("y", "float32", ("batch", 12, 48))


def single_layer(seed: int) -> Blueprint:
    """One self-attention layer, traced in a second."""
    layer = randomise(SelfAttentionLayer(48, ProcessorConfig(blocks=1, layers=1, heads=4)), seed)
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
    for precision in CPU_PRECISIONS:
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


@pytest.mark.parametrize("precision", CPU_PRECISIONS)
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
        assert entry.rel_l2 == max(fp16.margins.margin * entry.noise, fp16.margins.floor)
        assert "2 golden samples (sha256 " in entry.provenance
        assert "times 3," in entry.provenance
        assert entry.derivation is not None
        assert (entry.derivation.samples, entry.derivation.margin) == (2, fp16.margins.margin)
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
        measure(blueprint.cut, golden, p.emulate(blueprint.cut, blueprint.calibration, SCHEMES["cpu"]))[
            "pipeline", "logits"
        ].rel_l2
        for p in PRECISIONS.values()
    ]
    assert noise[0] < 1e-6 < 1e-4 < noise[1] < 3e-3 < noise[2] < noise[3] < 0.1


def test_emulation_leaves_the_reference_as_it_was(blueprint: Blueprint) -> None:
    before = Reference(blueprint.cut).run(blueprint.golden[0]).values["logits"]
    for precision in PRECISIONS.values():
        scope = precision.emulate(blueprint.cut, blueprint.calibration, SCHEMES["cpu"])
        Reference(blueprint.cut, scope=scope).run(blueprint.golden[0])
    assert np.array_equal(before, Reference(blueprint.cut).run(blueprint.golden[0]).values["logits"])


class Kelvin(nn.Module):
    """About 300, varying by 1, as the input says."""

    def __init__(self) -> None:
        super().__init__()
        self.head = randomise(nn.Linear(48, 1), 0)
        nn.init.normal_(self.head.weight, std=0.15)
        nn.init.constant_(self.head.bias, 300.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 12, 48) to (B, 12, 1)."""
        result: Tensor = self.head(x)
        return result


def of_module(module: nn.Module, rows: int = 8) -> Blueprint:
    """One component around a module that maps (B, 12, 48) to (B, 12, 1)."""
    answer = TensorSpec("y", "float32", ("batch", 12, 1))
    cut = Cut(
        (Component("layer", module.eval().requires_grad_(False), (IN,), (answer,)),),
        Pipeline((IN,), (answer,), (Step("layer", {"x": "x"}, {"y": "y"}, "encode"),)),
        Profile("default", {"batch": Range(1, 1, 8)}),
    )
    random = np.random.default_rng(0)
    feeds = tuple({"x": random.standard_normal((rows, 12, 48), dtype=np.float32)} for _ in range(2))
    return Blueprint(Source("layer", "toy", "", {}, pretrained=False), cut, feeds[:1], feeds[1:])


def without_signal(graph: ir.Model) -> ir.Model:
    """The matrix is zero: what is left is the bias."""
    for value in graph.graph.initializers.values():
        assert value.const_value is not None
        if value.const_value.size == 48:
            value.const_value = ir.tensor(np.zeros_like(value.const_value.numpy()), name=value.name)
    return graph


@pytest.mark.parametrize("precision", CPU_PRECISIONS)
def test_a_constant_does_not_hide_a_lost_signal(precision: str, tmp_path: Path) -> None:
    blueprint = of_module(Kelvin())
    healthy = export.export_bundle(blueprint, tmp_path / "healthy", precision)
    assert verify(tmp_path / "healthy").passed
    for entry in healthy.tolerances:
        assert entry.derivation is not None
        assert entry.centred is not None
        assert entry.derivation.centred_floor is not None
        assert entry.centred == max(
            PRECISIONS[precision].margins.margin * entry.centred_noise, entry.derivation.centred_floor
        )
    export.export_bundle(
        blueprint, tmp_path / "broken", precision, tracer=lambda *given: without_signal(trace(*given)), rules=()
    )
    for report in verify(tmp_path / "broken").reports:
        assert report.centred == pytest.approx(1.0, rel=0.2)
        assert report.rel_l2 < 2.0**-8
        assert not report.passed


def test_rows_that_a_precision_cannot_tell_apart_are_named(tmp_path: Path, progress: list[str]) -> None:
    module = Kelvin()
    nn.init.constant_(module.head.bias, 8_000.0)  # FP16 holds every fourth number there
    manifest = export.export_bundle(of_module(module), tmp_path / "b", "fp16")
    assert all(entry.centred is None for entry in manifest.tolerances)
    assert any("layer: y: golden rows differ by less than fp16 may lose" in line for line in progress)
    assert "Golden rows differ by less than fp16 may lose in `y` of `layer`" in (tmp_path / "b/README.md").read_text()


class Loud(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.first = nn.Linear(48, 48)
        self.second = nn.Linear(48, 1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, 12, 48) to (B, 12, 1)."""
        result: Tensor = self.second(self.first(x * self.factor)) / self.factor
        return result


def test_a_reference_whose_answers_are_not_finite_is_refused_by_layer(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"layer: .*\by\b.*float32.*\bfirst\b"):
        export.export_bundle(of_module(Loud(math.inf)), tmp_path / "b", "fp32")
    assert not (tmp_path / "b").exists()


def test_noise_that_is_not_finite_is_refused_by_layer() -> None:
    blueprint = of_module(Loud(3e5))
    golden = make_samples(blueprint.cut, blueprint.golden)

    def overflow(_: str) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.float16)

    with pytest.raises(CheckError, match=r"layer: y\b.*fp16.*\bfirst\b.*fp32"):
        derive(blueprint.cut, golden, PRECISIONS["fp16"], overflow)


def test_a_tolerance_that_would_pass_any_answer_is_refused() -> None:
    blueprint = of_module(Kelvin())
    golden = make_samples(blueprint.cut, blueprint.golden)

    @contextmanager
    def zeros(_: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn.Linear, "forward", lambda self, x: torch.zeros(*x.shape[:-1], 1))
            yield

    with pytest.raises(CheckError, match=r"layer: y in int8 is 1 .*tolerance of 2"):
        derive(blueprint.cut, golden, PRECISIONS["int8"], zeros)
