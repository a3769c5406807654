"""What docs/tensorrt.md says of targets and of the preflight is what their tables hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.preflight.checks import CHECKS
from perceiver_exporters.targets.target import TARGETS

PAGE = (Path(__file__).parents[2] / "docs" / "tensorrt.md").read_text(encoding="utf-8")
WITH_ENGINES = [target for target in TARGETS.values() if target.engines is not None]


def rows(first: str) -> list[list[str]]:
    """Cells of the table rows whose first cell matches."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    return [row for row in cells if re.fullmatch(first, row[0])]


def test_every_target_has_a_row() -> None:
    assert [row[0].strip("`") for row in rows("`.*`")] == [target.name for target in WITH_ENGINES]


@pytest.mark.parametrize("target", WITH_ENGINES, ids=lambda target: target.name)
def test_a_row_says_what_the_target_is(target) -> None:
    ((_, gpus, tensorrt, precisions, built),) = rows(f"`{target.name}`")
    assert precisions.split(", ") == list(target.precisions)
    without_notes = re.sub(r"\(.*?\)", "", gpus)
    assert re.findall(r"\d+", without_notes) == [c.replace(".", "") for c in target.engines.compute_capabilities]
    assert tensorrt.removeprefix("RTX ") == f"{'.'.join(map(str, target.engines.tensorrt))} and newer"
    assert (tensorrt.startswith("RTX "), "no GPU" in built) == (target.engines.module == "tensorrt_rtx",) * 2


def test_narrower_precisions_of_older_gpus() -> None:
    ((_, gpus, *_),) = rows("`rtx`")
    engines = TARGETS["rtx"].engines
    assert engines is not None
    offers = {
        c: [p for p in TARGETS["rtx"].precisions if c in engines.capabilities(p)] for c in engines.compute_capabilities
    }
    assert offers["7.5"] == ["fp16"]
    assert next(c for c, precisions in offers.items() if "fp8" in precisions) == "8.9"
    assert "SM75 (fp16 only)" in gpus
    assert "fp8 from 89 on" in gpus


def test_every_preflight_check_has_its_row() -> None:
    assert [(row[0], row[1].split(" (")[0]) for row in rows(r"PF\d+")] == [(check.id, check.title) for check in CHECKS]


def test_a_target_names_precisions_that_exist_and_says_why_it_lacks_the_others():
    for target in TARGETS.values():
        assert set(target.precisions) | set(target.unsupported) == set(PRECISIONS)
        assert not set(target.precisions) & set(target.unsupported)
        assert {*target.computed, *target.widened} <= set(target.precisions)
