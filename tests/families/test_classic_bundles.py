"""The original Perceiver and its language model: cut and exported, they answer as their modules do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from factories.families import SMALL, small_model

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.reference import Reference
from perceiver_runtime import open_session, verify
from perceiver_runtime.measure.compare import relative_l2

pytestmark = pytest.mark.xdist_group("families")


@pytest.mark.parametrize("family", ["classic-perceiver", "classic-perceiver-io", "classic-language-model"])
def test_a_bundle_answers_as_the_module_does(family, tmp_path):
    small = small_model(family)
    expected = small.module(*map(torch.from_numpy, small.feeds.values())).numpy()
    model = Model(family, FAMILIES[family], SMALL[family], small.module, False)
    export_bundle(blueprint(model), tmp_path / "bundle")
    assert verify(tmp_path / "bundle").passed
    with open_session(tmp_path / "bundle", threads=1) as session:
        assert relative_l2(expected, session.run(small.feeds)["logits"]) < 1e-5


def test_tied_stages_are_one_component_that_repeats():
    family = FAMILIES["classic-perceiver"]
    config = SMALL["classic-perceiver"]
    deep = dataclasses.replace(config, tied=True, processor=dataclasses.replace(config.processor, blocks=4))
    module = family.build(deep).eval()
    cut = family.cut(module)
    assert {step.component: step.repeat for step in cut.pipeline.steps} == {
        "tokens": 1,
        "stage0": 1,
        "stage1": 3,
        "decoder": 1,
    }
    feeds = family.sample(deep, 2, np.random.default_rng(0))
    expected = module(*map(torch.from_numpy, feeds.values())).numpy()
    assert relative_l2(expected, Reference(cut).run(feeds).values["logits"]) < 1e-6
