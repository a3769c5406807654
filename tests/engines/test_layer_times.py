"""Layers of engines and their times, in the form that NVIDIA's engine explorer (trex) reads. SIMULATED device."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from engines.simulation.jetson import SimulatedJetson, simulated_jetson

from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.cli.main import main
from perceiver_runtime.execution import choice
from perceiver_runtime.tensorrt.layer_times import EngineLayers, LayerTimes, write_layers

PROFILED = {"name", "timeMs", "averageMs", "medianMs", "percentage"}


@pytest.fixture
def jetson() -> SimulatedJetson:
    return simulated_jetson()


def check_layers(graph: Any) -> None:
    """What trex's reader takes from a graph file without a default: it fails if any of it is missing."""
    assert graph["Bindings"]
    assert all(isinstance(name, str) for name in graph["Bindings"])
    assert graph["Layers"]
    for layer in graph["Layers"]:
        assert layer["Name"]
        assert layer["LayerType"]
        for tensor in (*layer["Inputs"], *layer["Outputs"]):
            assert tensor["Name"]
            assert math.prod(tensor["Dimensions"]) > 0
            assert isinstance(tensor["Format/Datatype"], str)


def test_both_files_of_every_engine(path: Path, jetson: SimulatedJetson, tmp_path: Path) -> None:
    jetson.build(path)
    with load_bundle(path) as bundle:
        made = list(write_layers(bundle, jetson.backend(), tmp_path / "layers", runs=4))
        names = [component.name for component in bundle.manifest.components]
    assert [each.component for each in made] == names
    assert {file.name for file in (tmp_path / "layers").iterdir()} == {
        f"{name}.{kind}.json" for name in names for kind in ("graph", "profile")
    }
    for name in names:
        graph = json.loads((tmp_path / f"layers/{name}.graph.json").read_text())
        check_layers(graph)
        count, *layers = json.loads((tmp_path / f"layers/{name}.profile.json").read_text())
        assert count == {"count": 4}
        assert [record["name"] for record in layers] == [layer["Name"] for layer in graph["Layers"]]
        assert all(set(record) == PROFILED for record in layers)
        assert sum(record["percentage"] for record in layers) == pytest.approx(100)
        assert layers[0]["timeMs"] == 4 * layers[0]["medianMs"] == 4 * 0.5


def test_layers_of_one_name_are_kept_apart() -> None:
    times = [LayerTimes("copy", [1.0, 3.0]), LayerTimes("copy", [4.0, 4.0])]
    profile = EngineLayers("block", "{}", times).profile()
    assert profile[0] == {"count": 2}
    assert [(record["averageMs"], record["percentage"]) for record in profile[1:]] == [(2.0, 100 / 3), (4.0, 200 / 3)]


def test_the_command(
    path: Path, jetson: SimulatedJetson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    jetson.build(path)
    monkeypatch.setattr(choice, "open_backend", lambda *_: jetson.backend())
    assert main(["layers", str(path), "-o", str(tmp_path / "out"), "--iterations", "2"]) == 0
    assert "slowest layer" in capsys.readouterr().out
    assert main(["layers", str(path), "-o", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["block"][0] == {"count": 20}


def test_a_bundle_without_engines_is_refused(path: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["layers", str(path), "-o", str(tmp_path / "out")]) == 4
    assert "layers: expected engines that fit this machine, got no engines in the bundle" in capsys.readouterr().err
