"""A dry run refuses what the export refuses, by the same checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perceiver_deploy.api import export as exporting
from perceiver_deploy.sources import source
from perceiver_runtime.errors import UsageError

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no calibration data": ({"precision": "int8"}, "has no calibration data"),
    "no data to score": ({"precision": "int8-dynamic", "max_accuracy_drop": 1.0}, "has no data set"),
    "no such precision": ({"precision": "int7"}, "int7"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("call", [exporting.dry_run, exporting.export])
def test_both_refuse(call: Callable[..., Any], case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, reason = CASES[case]
    bare = dataclasses.replace(source.resolve("fashion-perceiver"), dataset=None)
    monkeypatch.setattr(exporting, "load", lambda *_, **__: bare)
    with pytest.raises(UsageError, match=reason):
        call("fashion-perceiver", tmp_path / "b", **arguments)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("call", [exporting.dry_run, exporting.export])
def test_destinations_are_checked_before_the_model_is_loaded(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "b", tmp_path / ("x" * 250)):
        with pytest.raises(UsageError):
            call("no-such-model", out)
