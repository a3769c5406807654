"""SIMULATION of the builder: engines come into a bundle all at once or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_bundles
from engines.simulation.jetson import SimulatedJetson, simulated_jetson

from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import BuildError, UsageError
from perceiver_runtime.tensorrt.bundle import EngineOptions, build_engines
from perceiver_runtime.tensorrt.progress import BuildProgress
from perceiver_runtime.tensorrt.sidecar import read_sidecar
from perceiver_runtime.tensors import Range

KILLED = """
import sys, time
from pathlib import Path
from engines.simulation.jetson import simulated_jetson
from perceiver_runtime.tensorrt.bundle import EngineOptions, build_engines
jetson = simulated_jetson()
def report(component, step):
    print(component, step.step, flush=True)
    time.sleep(0.02)
build_engines(Path(sys.argv[1]), "jetson-orin", jetson.trt, EngineOptions(device=jetson.device), report)
print("done", flush=True)
"""


def content(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_engines_come_with_sidecars_and_inspection(path: Path, jetson: SimulatedJetson) -> None:
    reports = build_engines(path, "jetson-orin", jetson.trt, EngineOptions(device=jetson.device))
    bundle = load_bundle(path)
    assert [r.component for r in reports] == [c.name for c in bundle.manifest.components]
    assert {f"engines/jetson-orin/encoder{e}" for e in (".plan", ".json", ".layers.json")} <= set(bundle.manifest.files)
    sidecar = read_sidecar(path / "engines/jetson-orin/fold.json")
    assert sidecar.compute_capabilities == ("8.7",)
    assert sidecar.tensorrt == "10.3.0"
    assert sidecar.device_bytes == 1 << 20
    # Own symbols with the ranges that the pipeline gives them: keys arrive in pieces of 3.
    assert dict(sidecar.profiles[0].dimensions) == {"b": Range(1, 1, 4), "n": Range(1, 3, 3)}
    assert read_sidecar(path / "engines/jetson-orin/block.json").products == {"fp32": 1}


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


def test_a_killed_build_leaves_the_bundle_as_it_was(path: Path) -> None:
    before = content(path)
    seen = set()
    for lines in (1, 6, 11, 17, 23):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert process.stdout is not None
        for _ in range(lines):
            seen.add(process.stdout.readline().split(" ")[0])
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert content(path) == before
        load_bundle(path)
    assert len(seen) > 3
    jetson = simulated_jetson()
    jetson.build(path)  # a later build succeeds, and sweeps away what the killed ones left
    assert [p.name for p in path.parent.iterdir()] == ["bundle"]


def test_a_full_disk_leaves_the_bundle_as_it_was(
    path: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, written = content(path), []
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.suffix == ".plan":
            written.append(self.name)
            if len(written) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        jetson.build(path)
    assert content(path) == before
    assert [p.name for p in path.parent.iterdir()] == ["bundle"]


def test_a_reporter_that_raises_stops_the_build(path: Path, jetson: SimulatedJetson) -> None:
    before, steps = content(path), []

    def report(_component: str, step: BuildProgress) -> None:
        steps.append(step)
        if len(steps) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engines(path, "jetson-orin", jetson.trt, EngineOptions(), report)
    assert len(steps) == 6
    assert content(path) == before


def test_a_refused_operator_is_named(path: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetson.trt.OnnxParser, "refused", ("Tanh",))
    before = content(path)
    with pytest.raises(BuildError, match=r"component block.*Tanh.*no importer"):
        jetson.build(path)
    assert content(path) == before


def test_a_bundle_changed_meanwhile_is_not_overwritten(path: Path, jetson: SimulatedJetson) -> None:
    def report(component: str, step: BuildProgress) -> None:
        if (component, step.step) == ("head", 1):
            tiny_bundles.change(path, lambda manifest: manifest["metrics"].update(accuracy=0.5))

    with pytest.raises(UsageError, match="changed by someone else"):
        build_engines(path, "jetson-orin", jetson.trt, EngineOptions(), report)
    assert load_bundle(path).manifest.metrics == {"accuracy": 0.5}


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
