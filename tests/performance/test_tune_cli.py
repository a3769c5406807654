"""`perceiver-export export --tune`."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_bundles
from click.testing import CliRunner

from perceiver_deploy.cli.export import command
from perceiver_runtime import load_bundle, open_session
from perceiver_runtime.format.tuning import read_tuning
from perceiver_runtime.manifest import Manifest


def test_export_and_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(_source: str, out: Path, **_options: object) -> Manifest:
        return load_bundle(tiny_bundles.write(out, tiny_bundles.full_model(), tiny_bundles.feeds())).manifest

    monkeypatch.setattr("perceiver_deploy.api.export.export", export)
    done = CliRunner().invoke(
        command, ["fashion-perceiver", "-o", str(tmp_path / "b"), "--tune", "--no-verify", "-q"], standalone_mode=False
    )
    assert done.exception is None
    tuning = read_tuning(tmp_path / "b")
    assert tuning is not None
    assert f"{tuning.winner.backend}, threads {tuning.winner.threads} " in done.stdout
    with open_session(tmp_path / "b") as session:
        assert (session.backend, session.threads) == (tuning.winner.backend, tuning.winner.threads)


def test_tuning_is_for_the_cpu(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        command, ["fashion-perceiver", "-o", str(tmp_path / "b"), "--target", "jetson-orin", "--tune"]
    )
    assert done.exit_code == 2
    assert "expected --target cpu" in done.output
    assert not (tmp_path / "b").exists()
