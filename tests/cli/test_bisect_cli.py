"""The shipped model, found by its name in the manifest, exported again and compared with a bundle that is wrong."""

from __future__ import annotations

import json

import pytest
from faults.seeded import BLOCK, seed, swap

pytestmark = pytest.mark.xdist_group("cli")


def test_bisect_names_the_node_of_the_shipped_model(perceiver_export, bundles, tmp_path):
    broken = seed(bundles["int8"], tmp_path / "broken", BLOCK, swap("1.attention.key", "1.attention.value"))
    result = perceiver_export("bisect", broken, "--out", tmp_path / "nodes", "--json")
    assert result.returncode == 1, result.stderr
    found = json.loads(result.stdout)
    assert found["source"] == "fashion-perceiver"
    assert [(b["component"], b["kind"], b["node"]) for b in found["diagnoses"]] == [
        (BLOCK, "node", "1.attention.key/MatMul")
    ]
    assert perceiver_export("replay", tmp_path / "nodes" / BLOCK).returncode == 1


def test_growth_of_the_shipped_model(perceiver_export, bundles, tmp_path):
    result = perceiver_export("growth", bundles["fp16"], "--out", tmp_path / "growth.json")
    assert result.returncode == 0, result.stderr
    assert "over the runs of processor_block" in result.stdout
    (growth,) = json.loads((tmp_path / "growth.json").read_text())["growth"]
    assert len(growth["chained"]) == 3
