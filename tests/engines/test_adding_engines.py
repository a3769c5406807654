"""SIMULATION of the builder: engines come into a bundle all at once or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny_bundles
from engines.progress import progress_to
from engines.simulation.jetson import SimulatedJetson, simulated_jetson
from engines.simulation.trt import MAGIC

from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import BuildError, UsageError
from perceiver_runtime.format.signature import SIGNATURE_NAME
from perceiver_runtime.progress import Done
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensorrt.builder.bundle import EngineOptions, build_engines
from perceiver_runtime.tensorrt.sidecar import read_sidecar
from perceiver_runtime.tensors import Range


def content(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_engines_come_with_sidecars_and_inspection(path: Path, jetson: SimulatedJetson) -> None:
    reports = build_engines(path, "jetson-orin", jetson.trt, EngineOptions(device=jetson.device))
    bundle = load_bundle(path)
    assert [r.component for r in reports] == [c.name for c in bundle.manifest.components]
    assert {f"engines/jetson-orin/encoder{e}" for e in (".plan", ".json", ".layers.json")} <= set(bundle.manifest.files)
    inspected = json.loads((path / "engines/jetson-orin/encoder.layers.json").read_text())
    assert all(layer["LayerType"] for layer in inspected["Layers"])
    assert inspected["Layers"]
    sidecar = read_sidecar(path / "engines/jetson-orin/fold.json")
    assert sidecar.compute_capabilities == ("8.7",)
    assert sidecar.tensorrt == "10.3.0"
    assert sidecar.device_bytes == 1 << 20
    # Own symbols with the ranges that the pipeline gives them: keys arrive in pieces of 3.
    assert dict(sidecar.profiles[0].dimensions) == {"b": Range(1, 1, 4), "n": Range(1, 3, 3)}
    assert read_sidecar(path / "engines/jetson-orin/block.json").products == {"fp32": 1}


@pytest.mark.parametrize("compatible", [False, True])
def test_how_engines_are_built(path: Path, jetson: SimulatedJetson, compatible: bool) -> None:
    """Without TF32, which would take 13 of FP32's bits; with all details for the inspector; within the workspace."""
    options = EngineOptions(workspace=77 << 20, version_compatible=compatible)
    build_engines(path, "jetson-orin", jetson.trt, options)
    header = json.loads((path / "engines/jetson-orin/encoder.plan").read_bytes()[len(MAGIC) :].split(b"\n", 1)[0])
    assert header["flags"] == (["EXCLUDE_LEAN_RUNTIME", "VERSION_COMPATIBLE"] if compatible else [])
    assert header["verbosity"] == "DETAILED"
    assert header["workspace"] == 77 << 20
    assert header["profiles"]


def test_building_again_replaces_and_keeps_other_targets(path: Path, jetson: SimulatedJetson) -> None:
    jetson.build(path)
    first = content(path)
    thor = simulated_jetson("10.13.3.9", "11.0")
    thor.build(path, "jetson-thor")
    both = content(path)
    assert {n for n in both if n not in first} == {n.replace("orin", "thor") for n in first if "orin" in n}
    jetson.build(path)
    assert content(path) == both
    with thor.open(path) as session:
        session.run(tiny_bundles.feeds())
    with jetson.open(path) as session:
        session.run(tiny_bundles.feeds())


@pytest.mark.parametrize("suffix", [".plan", ".layers.json", "block.json", "manifest.json"])
@pytest.mark.parametrize("links", [True, False])
def test_a_full_disk_leaves_the_bundle_as_it_was(
    path: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch, suffix: str, links: bool
) -> None:
    """Whatever the disk has no room for: an engine, its inspection, its sidecar, the manifest, or a file's bytes."""
    before = content(path)
    opened = io.open

    def full(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "w" in mode and str(file).endswith(suffix):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return opened(file, mode, *arguments, **options)

    monkeypatch.setattr(io, "open", full)
    if not links:
        monkeypatch.setattr(os, "link", refuse_link)
    with pytest.raises(OSError, match="No space left"):
        jetson.build(path)
    assert content(path) == before
    assert [p.name for p in path.parent.iterdir()] == ["bundle"]


def refuse_link(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_disk_that_fails_while_syncing_leaves_the_bundle_as_it_was(
    path: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where blocks are allocated late, a full disk shows up here."""
    before = content(path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        jetson.build(path)
    assert content(path) == before
    assert [p.name for p in path.parent.iterdir()] == ["bundle"]


def test_a_progress_handler_that_raises_stops_the_build(path: Path, jetson: SimulatedJetson) -> None:
    before, steps = content(path), []

    def see(done: Done) -> None:
        steps.append(done)
        if len(steps) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), progress_to(see):
        build_engines(path, "jetson-orin", jetson.trt, EngineOptions())
    assert len(steps) == 6
    assert content(path) == before


def test_a_refused_operator_is_named(path: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetson.trt.OnnxParser, "refused", ("Tanh",))
    before = content(path)
    with pytest.raises(BuildError, match=r"component block.*Tanh.*no importer"):
        jetson.build(path)
    assert content(path) == before


def test_a_bundle_changed_meanwhile_is_not_overwritten(path: Path, jetson: SimulatedJetson) -> None:
    def see(done: Done) -> None:
        if (done.what, done.done) == ("head: Building engine", 1):
            tiny_bundles.change(path, lambda manifest: manifest.update(golden_origin="elsewhere"))

    with pytest.raises(UsageError, match="changed by someone else"), progress_to(see):
        build_engines(path, "jetson-orin", jetson.trt, EngineOptions())
    assert load_bundle(path).manifest.golden_origin == "elsewhere"


def test_foreign_compute_capabilities_need_a_kit(path: Path, jetson: SimulatedJetson) -> None:
    with pytest.raises(UsageError, match="make a build kit"):
        build_engines(path, "rtx", jetson.trt, EngineOptions(compute_capabilities=("8.6",)))


def test_a_timing_cache_is_kept(path: Path, jetson: SimulatedJetson, tmp_path: Path) -> None:
    cache = tmp_path / "timings"
    build_engines(path, "jetson-orin", jetson.trt, EngineOptions(timing_cache=cache))
    assert cache.read_bytes() == b"timings"
    cache.write_bytes(b"older timings")
    build_engines(path, "jetson-orin", jetson.trt, EngineOptions(timing_cache=cache))
    assert cache.read_bytes() == b"older timings"


def test_timings_that_another_build_added_meanwhile_stay(path: Path, jetson: SimulatedJetson, tmp_path: Path) -> None:
    cache = tmp_path / "timings"
    seen: list[Done] = []

    def see(done: Done) -> None:
        if not seen and done.what.endswith("Building engine"):
            seen.append(done)
            cache.write_bytes(b"of another bundle")

    with progress_to(see):
        build_engines(path, "jetson-orin", jetson.trt, EngineOptions(timing_cache=cache))
    assert b"of another bundle" in cache.read_bytes()
    assert cache.read_bytes().startswith(b"timings")


@pytest.mark.parametrize(("refuses", "answer"), [("set_timing_cache", False), ("create_timing_cache", None)])
def test_another_gpus_timing_cache_is_refused(
    path: Path, jetson: SimulatedJetson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str, answer: object
) -> None:
    before, cache = content(path), tmp_path / "timings"
    cache.write_bytes(b"of another GPU")
    monkeypatch.setattr(jetson.trt.IBuilderConfig, refuses, lambda *_, **__: answer)
    with pytest.raises(UsageError, match="no timings of this TensorRT on this GPU; give another file"):
        build_engines(path, "jetson-orin", jetson.trt, EngineOptions(timing_cache=cache))
    assert cache.read_bytes() == b"of another GPU"
    assert content(path) == before


def test_tensorrt_rtx_has_no_timing_cache(path: Path, tmp_path: Path) -> None:
    """REAL: the option is for TensorRT; here a file is neither read nor written."""
    options = EngineOptions(compute_capabilities=("12.0",), timing_cache=tmp_path / "timings")
    assert build_engines(path, "rtx", load_tensorrt("tensorrt_rtx"), options)
    assert not (tmp_path / "timings").exists()


def test_a_signature_goes_with_the_engines_that_it_did_not_cover(path: Path, jetson: SimulatedJetson) -> None:
    (path / SIGNATURE_NAME).write_bytes(bytes(64))
    assert load_bundle(path).signature == bytes(64)
    jetson.build(path)
    assert load_bundle(path).signature is None
