"""Bytes of a bundle's graphs and weights against those of the model's parameters: what is shared is stored once.

Positions are constants beside the parameters. A table per axis of the grid makes them (0.2 MB at 224 x 224 pixels),
where one row per pixel would be 52 MB: so nothing but parameters is worth counting, and 2% is the bound. A reduced
size is in test_family_structure.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.released import RELEASED
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.bundle.storage import save_graphs
from perceiver_exporters.export import Exporter
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.rules import REWRITE_RULES
from perceiver_exporters.targets.target import TARGETS

VISION = {
    "vision-perceiver-learned": "image-classifier-learned",
    "vision-perceiver-fourier": "image-classifier-fourier",
    "vision-perceiver-conv": "image-classifier-conv",
}

pytestmark = pytest.mark.xdist_group("families")


def ratios(family: str, config: object, directory: Path) -> dict[str, float]:
    """Bytes stored per byte of parameters, as traced and as rewritten."""
    torch.manual_seed(0)
    module = FAMILIES[family].build(config).eval()
    made = blueprint(Model("size", FAMILIES[family], config, module, False))
    parameters = sum(p.nbytes for p in module.parameters())
    found = {}
    for name, rules in (("traced", ()), ("rewritten", REWRITE_RULES)):
        (directory / name).mkdir()
        graphs = Exporter(made, PRECISIONS["fp32"], TARGETS["cpu"], rules=rules).records().graphs
        save_graphs(graphs, directory / name)
        found[name] = sum(p.stat().st_size for p in (directory / name).rglob("*") if p.is_file()) / parameters
    return found


@pytest.mark.full
@pytest.mark.parametrize("name", VISION)
def test_a_released_bundle_weighs_what_its_parameters_do(name, tmp_path):
    """As traced, within 2%; rules fold parameters into constants, and may make it lighter, never heavier."""
    found = ratios(VISION[name], RELEASED[name], tmp_path)
    print(name, {kind: round(ratio, 4) for kind, ratio in found.items()})
    assert found["traced"] == pytest.approx(1, abs=0.02)
    assert found["rewritten"] < 1.02
