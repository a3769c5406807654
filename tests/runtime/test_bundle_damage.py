"""Each kind of damage has a message of its own, and exit code 3."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors.numpy import load_file, save_file
from tiny_bundles import change, rehash

from perceiver_runtime import BundleError, load_bundle, open_session, verify
from perceiver_runtime import bundle as bundle_module
from perceiver_runtime.bundle import file_entry
from perceiver_runtime.cli.main import main
from perceiver_runtime.format.schema import encode

ENCODER = "onnx/encoder.onnx"
SAMPLE = "golden/sample-0.safetensors"


def _edit(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda directory: change(directory, edit)


def _rename_listed(name: str) -> Callable[[Path], object]:
    """List the encoder under another path, with its right hash."""

    def edit(m: dict[str, Any]) -> None:
        m["files"][name] = m["files"].pop(ENCODER)
        m["components"][0]["onnx"] = name

    return _edit(edit)


def _link_out(directory: Path) -> None:
    outside = directory.parent / "outside.onnx"
    (directory / ENCODER).rename(outside)
    (directory / ENCODER).symlink_to(outside)


def _flip(directory: Path) -> None:
    data = bytearray((directory / ENCODER).read_bytes())
    data[-1] ^= 1
    (directory / ENCODER).write_bytes(data)


def _truncate(directory: Path) -> None:
    os.truncate(directory / ENCODER, 100)


def _truncate_and_rehash(directory: Path) -> None:
    _truncate(directory)
    rehash(directory, ENCODER)


def _swap_graph(directory: Path) -> None:
    (directory / ENCODER).write_bytes((directory / "onnx/block.onnx").read_bytes())
    rehash(directory, ENCODER)


def _set_type(directory: Path) -> None:
    graph = onnx.load(directory / "onnx/head.onnx")
    graph.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    cast = onnx.helper.make_node("Cast", ["raw"], ["logits"], to=onnx.TensorProto.FLOAT16)
    graph.graph.node[0].output[0] = "raw"
    graph.graph.node.append(cast)
    onnx.save(graph, directory / "onnx/head.onnx")
    rehash(directory, "onnx/head.onnx")


def _set_shape(directory: Path) -> None:
    graph = onnx.load(directory / "onnx/head.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, directory / "onnx/head.onnx")
    rehash(directory, "onnx/head.onnx")


def _golden_key(directory: Path) -> None:
    tensors = load_file(directory / SAMPLE)
    save_file({**tensors, "nonsense/x": tensors["feeds/x"]}, directory / SAMPLE)
    rehash(directory, SAMPLE)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "no manifest.json"),
    "manifest no JSON": (lambda d: (d / "manifest.json").write_text("{"), "no valid JSON"),
    "manifest no UTF-8": (lambda d: (d / "manifest.json").write_bytes(b"\xff"), "no valid JSON"),
    "manifest a list": (lambda d: (d / "manifest.json").write_text("[]"), "integer schema_version, got None"),
    "newer schema": (
        _edit(lambda m: m.update(schema_version=3)),
        "manifest schema 3; this runtime reads 1; upgrade perceiver",
    ),
    "schema no number": (_edit(lambda m: m.update(schema_version="1")), "integer schema_version, got '1'"),
    "unknown field": (_edit(lambda m: m.update(extra=1)), "unknown field extra"),
    "missing field": (_edit(lambda m: m.pop("pipeline")), "missing field pipeline"),
    "wrong type": (_edit(lambda m: m.update(opset="18")), r"manifest\.opset: expected int"),
    "missing file": (lambda d: (d / ENCODER).unlink(), "listed in the manifest but missing"),
    "wrong size": (_truncate, "expected .* bytes, got 100"),
    "wrong hash": (_flip, "expected sha256"),
    "truncated graph with the right hash": (_truncate_and_rehash, "can't load"),
    "unlisted graph": (_edit(lambda m: m["files"].pop(ENCODER)), "used but not listed"),
    "unlisted sample": (_edit(lambda m: m["files"].pop(SAMPLE)), "used but not listed"),
    "unlisted weights": (lambda d: (d / "onnx/extra.data").write_bytes(b"x"), "not listed in the manifest; remove"),
    "parent path": (_rename_listed("../outside.onnx"), "leaves the bundle; expected a relative"),
    "inner parent path": (_rename_listed("onnx/../../outside.onnx"), "leaves the bundle; expected a relative"),
    "absolute path": (_rename_listed("/etc/hostname"), "leaves the bundle; expected a relative"),
    "backslash path": (_rename_listed("..\\outside.onnx"), "leaves the bundle; expected a relative"),
    "empty path": (_rename_listed(""), "leaves the bundle; expected a relative"),
    "link that leaves": (_link_out, "a link that leaves"),
    "another graph": (_swap_graph, "the graph has"),
    "another type": (_set_type, "the graph has"),
    "another shape": (_set_shape, "the graph has"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(copy: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage, message = DAMAGE[case]
    damage(copy)
    with pytest.raises(BundleError, match=message) as error:
        open_session(copy)
    other = {explanation for _, explanation in DAMAGE.values()} - {message}
    assert not [explanation for explanation in other if re.search(explanation, str(error.value))]
    assert main(["verify", str(copy)]) == 3
    assert "perceiver-run: " in capsys.readouterr().err


def test_unknown_golden_key(copy: Path) -> None:
    _golden_key(copy)
    assert main(["verify", str(copy)]) == 3


def test_a_name_twice_in_the_manifest(copy: Path) -> None:
    change(copy, lambda m: None)
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"target":', '"target": "cuda", "target":', 1))
    with pytest.raises(BundleError, match="'target' occurs twice"):
        load_bundle(copy)


def test_not_a_directory(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is none"):
        load_bundle(tmp_path / "nowhere")


def test_whole_bundle_loads_through_a_link(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    assert load_bundle(tmp_path / "link").manifest.source.name == "tiny"


def test_no_parser_sees_a_damaged_file(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def parse(*_: object, **__: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(onnxruntime, "InferenceSession", parse)
    _flip(copy)
    with pytest.raises(BundleError, match="sha256"):
        open_session(copy)


def _move_weights_out(directory: Path, location: str) -> None:
    """Store the head's weight in another file, at a path relative to the graph."""
    graph = onnx.load(directory / "onnx/head.onnx")
    (tensor,) = graph.graph.initializer
    (directory / "onnx" / location).write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (directory / "onnx/head.onnx").write_bytes(graph.SerializeToString())
    rehash(directory, "onnx/head.onnx")


def test_external_weights(copy: Path) -> None:
    _move_weights_out(copy, "weights.data")
    rehash(copy, "onnx/weights.data")
    assert verify(copy).passed
    data = bytearray((copy / "onnx/weights.data").read_bytes())
    data[0] ^= 1
    (copy / "onnx/weights.data").write_bytes(data)
    with pytest.raises(BundleError, match="expected sha256"):
        open_session(copy)


@pytest.mark.parametrize("location", ["../weights.data", "../../weights.data", "../../../weights.data"])
def test_external_weights_outside_the_bundle(copy: Path, location: str) -> None:
    _move_weights_out(copy, location)
    with pytest.raises(BundleError, match=r"can't load|not listed"):
        open_session(copy)


@pytest.mark.parametrize("place", [0, 64, -1])
def test_a_large_file_is_checked_piece_by_piece(copy: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """Also its last, shorter piece; `sha256` stays what other tools compute."""
    monkeypatch.setattr("perceiver_runtime.bundle.PIECE_BYTES", 64)
    entry = file_entry(copy / ENCODER)
    assert len(entry.pieces) == -(-entry.size // 64) > 2
    change(copy, lambda m: m["files"].update({ENCODER: encode(entry)}))
    load_bundle(copy)
    data = bytearray((copy / ENCODER).read_bytes())
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    data[place] ^= 1
    (copy / ENCODER).write_bytes(data)
    with pytest.raises(BundleError, match="was changed or damaged"):
        load_bundle(copy)


def test_a_piece_without_hash(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceiver_runtime.bundle.PIECE_BYTES", 64)
    entry = encode(file_entry(copy / ENCODER))
    change(copy, lambda m: m["files"].update({ENCODER: {**entry, "pieces": entry["pieces"][:-1]}}))
    with pytest.raises(BundleError, match="expected a hash for every 64"):
        load_bundle(copy)


def test_pieces_and_the_whole_file_have_to_agree(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perceiver_runtime.bundle.PIECE_BYTES", 64)
    entry = encode(file_entry(copy / ENCODER))
    change(copy, lambda m: m["files"].update({ENCODER: {**entry, "sha256": "0" * 64}}))
    with load_bundle(copy) as loaded, pytest.raises(BundleError, match="expected sha256 000"):
        verify(loaded)


def test_a_bundle_that_is_replaced_again_and_again_is_not_read_for_ever(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def read(directory: Path, _keys: object) -> None:
        tried.append(directory)
        raise BundleError("another bundle's file")

    monkeypatch.setattr(bundle_module, "_read_once", read)
    monkeypatch.setattr(bundle_module, "_identity", lambda _: (len(tried),))
    with pytest.raises(BundleError, match="another bundle's file"):
        load_bundle(copy)
    assert tried == [copy] * bundle_module.ATTEMPTS
