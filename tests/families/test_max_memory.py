"""`export --max-memory`: sizes with units, the estimate before anything is made, refusals."""

from __future__ import annotations

import json

import pytest

from perceiver_deploy.cli.main import main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["export", "multimodal-perceiver", *arguments])
    return exit_.value.code  # type: ignore[return-value]


def megabytes(estimate: str) -> int:
    return int(estimate.split(" MB")[0].replace(",", ""))


def test_a_plan_estimates_within_the_limit(capsys, tmp_path):
    arguments = ["-o", str(tmp_path / "b"), "--dry-run", "--json"]
    assert run(*arguments) == 0
    own = json.loads(capsys.readouterr().out)["memory"]
    assert run(*arguments, "--max-memory", "0.45GB") == 0
    bounded = json.loads(capsys.readouterr().out)["memory"]
    assert megabytes(bounded) <= 450 < megabytes(own)


@pytest.mark.parametrize(("size", "says"), [("1500", "size with a unit"), ("100MB", "the least possible is")])
def test_other_sizes_and_too_small_ones_are_refused(capsys, tmp_path, size, says):
    assert run("-o", str(tmp_path / "b"), "--dry-run", "--max-memory", size) == 2
    assert says in capsys.readouterr().err.replace("\n", " ")
