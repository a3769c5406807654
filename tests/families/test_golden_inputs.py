"""What golden samples are made of: several rows for every model, and words for where they came from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories.families import SMALL, small_model

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.released import RELEASED
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import LARGE_ROW, blueprint, random_golden, resolve


@pytest.mark.parametrize("family", SMALL)
def test_a_model_without_data_gets_several_rows_of_random_values(family: str) -> None:
    model = small_model(family)
    made = blueprint(Model(family, FAMILIES[family], SMALL[family], model.module, False))
    assert made.golden_origin == "random values (seed 0)"
    (golden,) = made.golden
    batches = [golden[s.name].shape[0] for s in made.cut.pipeline.inputs if s.shape[:1] == ("batch",)]
    assert set(batches) == {8}


def test_rows_of_a_large_model_come_one_by_one() -> None:
    """A row of 240 x 320 pixels is beyond the limit already."""
    config = replace(RELEASED["optical-flow-perceiver"], height=240, width=320)
    golden = random_golden(FAMILIES["optical-flow"], config)
    assert [feeds["inputs"].shape[0] for feeds in golden] == [1, 1, 1]
    assert golden[0]["inputs"].nbytes > LARGE_ROW
    assert (golden[0]["inputs"] != golden[1]["inputs"]).any()


def test_rows_of_a_data_set_are_called_by_its_name() -> None:
    made = blueprint(resolve("fashion-perceiver"))
    assert made.golden_origin == "fashion-mnist (held-out split, first 8 samples)"
    assert len(made.golden[0]["pixel_values"]) == 8
