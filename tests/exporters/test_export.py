from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from safetensors.numpy import load_file

from perceiver_deploy.api.verify import verify
from perceiver_deploy.models.image_classifier import ImageClassifier
from perceiver_exporters.bundle import storage
from perceiver_exporters.bundle.sealing import seal
from perceiver_exporters.bundle.storage import save_graphs
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import Tracer, export_bundle
from perceiver_exporters.precision import require
from perceiver_exporters.targets.target import TARGETS
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime import bundle as loading
from perceiver_runtime import open_session
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import UsageError
from perceiver_runtime.golden import load_golden
from perceiver_runtime.manifest import MANIFEST_NAME

from .conftest import CONFIG, FAMILY, Bundle, build_blueprint, build_model

import onnxruntime as ort


def contents(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_old_runtimes_read_the_graphs(bundle: Bundle) -> None:
    """Operator set 20 needs no newer IR version than 9, whatever the installed onnx writes of its own accord."""
    for precision in ("fp32", "int8"):
        path, manifest = bundle(precision)
        graphs = [onnx.load(path / c.onnx, load_external_data=False) for c in manifest.components]
        assert {(g.ir_version, g.opset_import[0].version) for g in graphs} == {(9, 20)}


def test_two_exports_of_the_same_model_are_byte_identical(tracer: Tracer, tmp_path: Path) -> None:
    """The session's traces of one model, and new traces of another with the same weights, quantised anew."""
    export_bundle(build_blueprint(build_model()), tmp_path / "a", "int8", tracer=tracer)
    export_bundle(build_blueprint(build_model()), tmp_path / "b", "int8")
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []


@pytest.mark.parametrize("precision", TARGETS["cpu"].precisions)
def test_a_bundle_loads_and_answers_as_the_model(
    precision: str, bundle: Bundle, blueprint: Blueprint, model: ImageClassifier
) -> None:
    path, manifest = bundle(precision)
    assert load_bundle(path).manifest == manifest
    assert {c.precision for c in manifest.components} == {precision}
    assert manifest.labels == tuple("abcdefghij")
    assert manifest.tools["torch"] == torch.__version__
    assert set(manifest.files) == contents(path).keys() - {"manifest.json"}
    feeds = FAMILY.sample(CONFIG, 5, np.random.default_rng(11))
    expected = model(torch.from_numpy(feeds["pixel_values"])).numpy()
    with open_session(path) as session:
        got = session.run(feeds)["logits"]
    assert np.linalg.norm(got - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_others_may_read_what_the_umask_lets_them(
    blueprint: Blueprint, tracer: Tracer, tmp_path: Path, umask: int
) -> None:
    """A bundle that root exported is served by another user."""
    before = os.umask(umask)
    try:
        export_bundle(blueprint, tmp_path / "bundle", "fp32", tracer=tracer)
    finally:
        os.umask(before)
    for path in (tmp_path / "bundle", *(tmp_path / "bundle").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_a_bundle_may_be_sealed_again(bundle: Bundle) -> None:
    path, manifest = bundle("fp32")
    again = seal(dataclasses.replace(manifest, golden_origin="elsewhere"), path)
    assert MANIFEST_NAME not in again.files
    assert load_bundle(path).manifest == again


def test_verification_hashes_a_bundle_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = bundle("fp32")
    hashed = []
    check = loading._check_hashes
    monkeypatch.setattr(
        loading, "_check_hashes", lambda directory, files: (hashed.append(files), check(directory, files))
    )
    assert verify(path).passed
    assert len(hashed) == 1


def test_progress_names_each_stage(bundle: Bundle, progress: list[str]) -> None:
    bundle("fp32")
    assert progress[0] == "encoder: trace"
    assert "decoder: fp32" in progress
    assert progress[-1].startswith("write ")


def test_the_card_tells_how_to_run_it(bundle: Bundle) -> None:
    path, manifest = bundle("int8")
    card = (path / "README.md").read_text()
    for text in ("perceiver-run verify", "pixel_values", "(batch, 10)", "processor_block", "weights are random"):
        assert text in card
    assert all(f"{t.rel_l2:.2e}" in card for t in manifest.tolerances)


def test_golden_components_belong_to_the_golden_values(bundle: Bundle, blueprint: Blueprint) -> None:
    path, manifest = bundle("fp32")
    assert len(manifest.golden) == 2
    sample = load_golden(load_bundle(path))[0]
    assert np.array_equal(sample.feeds["pixel_values"], blueprint.golden[0]["pixel_values"])
    decoder = sample.components["decoder"]
    assert np.array_equal(decoder.inputs["latents"], sample.values["latents"])
    assert np.allclose(decoder.outputs["logits"], sample.values["logits"], atol=1e-6)


def test_a_golden_tensor_is_stored_once(bundle: Bundle) -> None:
    """The encoder's input is the feed, the decoder's is an encoded value."""
    path, manifest = bundle("fp32")
    (first, *_) = manifest.golden
    stored = set(load_file(path / first))
    everything = set(load_golden(load_bundle(path))[0].tensors())
    assert {"components/encoder/in/pixel_values", "components/decoder/in/latents"} <= everything - stored
    assert {"feeds/pixel_values", "values/latents", "values/logits"} <= stored


@pytest.mark.parametrize(
    ("precision", "target", "message"),
    [
        ("int3", "cpu", "expected one of fp32, fp16, bf16, int8, int8-dynamic, fp8, int4, got 'int3'"),
        ("int4", "cpu", "weight-only INT4 is for GPUs"),
        ("fp32", "abacus", "expected one of cpu.*, got 'abacus'"),
        ("int8", "cuda", r"target cuda does not compute in int8 \(.*no INT8 matrix products\); it offers fp32, fp16"),
        ("bf16", "cpu", r"target cpu does not compute in bf16 \(ONNX Runtime has no BF16 .*\); it offers fp32, fp16"),
    ],
)
def test_what_a_target_cannot_do_is_refused(precision: str, target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        require(TARGETS, target, precision)


def test_int8_without_calibration_data_is_refused(blueprint: Blueprint, tmp_path: Path) -> None:
    bare = dataclasses.replace(blueprint, calibration=())
    with pytest.raises(UsageError, match="toy has no calibration data"):
        export_bundle(bare, tmp_path / "bundle", "int8")
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_of_two_components_is_stored_once(graphs: dict[str, ir.Model], tmp_path: Path) -> None:
    block, twin = graphs["processor_block"], graphs["processor_block"].clone()
    paths = save_graphs({"block": block, "twin": twin, "decoder": graphs["decoder"]}, tmp_path)
    sizes = {name: (tmp_path / path).stat().st_size for name, path in paths.items()}
    weights = 2 * 6 * 64 * 64 * 4
    assert weights <= (tmp_path / "onnx" / storage.SHARED).stat().st_size < 1.1 * weights
    assert sizes["block"] + sizes["twin"] < weights
    x = {"latents": np.random.default_rng(0).standard_normal((2, 16, 64), dtype=np.float32)}
    answers = [ort.InferenceSession(tmp_path / paths[name]).run(None, x)[0] for name in ("block", "twin")]
    assert np.array_equal(*answers)
    assert not list(tmp_path.glob("onnx/decoder.weights"))


def test_a_large_component_keeps_its_weights_beside_the_graph(
    graphs: dict[str, ir.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = {"latents": np.random.default_rng(0).standard_normal((2, 16, 64), dtype=np.float32)}
    inline = ir.to_proto(graphs["processor_block"]).SerializeToString()
    monkeypatch.setattr(storage, "MIN_COMPONENT_BYTES", 1)
    path = tmp_path / save_graphs({"block": graphs["processor_block"]}, tmp_path)["block"]
    assert path.stat().st_size < 40_000 < (tmp_path / "onnx" / "block.weights").stat().st_size
    assert np.array_equal(*(ort.InferenceSession(m).run(None, x)[0] for m in (path, inline)))


def test_the_weights_hash_sees_values_names_and_shapes(model: ImageClassifier) -> None:
    assert weights_sha256(model) == weights_sha256(build_model())
    assert weights_sha256(model) != weights_sha256(build_model(1))
    a, b = torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)
    torch.nn.init.ones_(a.weight)
    torch.nn.init.ones_(b.weight)
    a.bias = b.bias = None  # type: ignore[assignment]
    assert weights_sha256(a) != weights_sha256(b)
