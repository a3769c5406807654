"""A tuning ranks what it measured, and `auto` heeds it only for the same bundle, machine and backend version."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_bundles

from perceiver_deploy.api import tune as tuner
from perceiver_deploy.api.tune import rank, thread_counts, tune
from perceiver_runtime import BundleError, UnavailableError, open_session
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.format.tuning import Measured, read_tuning, tuning_path, write_tuning


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundles.write(tmp_path / "tiny", tiny_bundles.full_model(), tiny_bundles.feeds())


def _record(bundle: Path, backend: str = "onnxruntime-exact", threads: int = 1, **versions: str) -> Path:
    """A winner that `auto` would never take by itself."""
    if not versions:
        with open_session(bundle, "onnxruntime", 1) as session:
            versions = dict(session.versions)
    write_tuning(bundle, (Measured(backend, threads, versions, 1.0, 1.0, 1.0, 1.0),))
    return tuning_path(bundle)


def test_tune_measures_what_is_installed(bundle: Path) -> None:
    before = {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    tuning = tune(bundle, iterations=3)
    assert read_tuning(bundle) == tuning
    assert [m.milliseconds for m in tuning.measured] == sorted(m.milliseconds for m in tuning.measured)
    assert tuning.winner.ratio == 1
    assert {"onnxruntime"} <= {m.backend for m in tuning.measured} <= set(tuner.BACKENDS)
    assert {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()} == before
    load_bundle(bundle)


def test_a_backend_that_is_not_installed_is_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, name: str, threads: int, **options: Any) -> Any:
        if name == "openvino":
            raise UnavailableError("backend openvino: the package is not installed")
        return open_session(path, name, threads, **options)

    monkeypatch.setattr(tuner, "open_session", refuse)
    caplog.set_level("INFO")
    tuning = tune(bundle, iterations=2)
    assert {m.backend for m in tuning.measured} == {"onnxruntime"}
    assert "not measured: backend openvino: the package is not installed" in caplog.messages


def test_a_narrower_backend_is_measured_within_tolerances_only(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tuner, "BACKENDS", ("onnxruntime", "onnxruntime-exact"))
    monkeypatch.setattr(tuner, "NARROWER", ("onnxruntime-exact",))
    assert {m.backend for m in tune(bundle, iterations=2).measured} == set(tuner.BACKENDS)
    monkeypatch.setattr(tuner, "verify", lambda _: SimpleNamespace(passed=False))
    caplog.set_level("INFO")
    assert {m.backend for m in tune(bundle, iterations=2).measured} == {"onnxruntime"}
    assert "tolerances do not allow its precision" in caplog.text


def test_no_backend_at_all_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **options: Any) -> Any:
        raise UnavailableError("not installed")

    monkeypatch.setattr(tuner, "open_session", refuse)
    with pytest.raises(UnavailableError, match="onnxruntime, openvino"):
        tune(bundle, iterations=2)
    assert not tuning_path(bundle).exists()


def test_rank() -> None:
    times = {("a", 1): (4.0, 4.0, 6.0), ("a", 2): (2.0, 2.0, 3.0), ("b", 1): (3.0, 3.0, 4.5)}
    ranked = rank(times, {setting: {"x": "1"} for setting in times})
    assert [(m.backend, m.threads, m.milliseconds, m.ratio) for m in ranked] == [
        ("a", 2, 2.0, 1.0),
        ("b", 1, 3.0, 1.5),
        ("a", 1, 4.0, 2.0),
    ]


@pytest.mark.parametrize(("cores", "counts"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_thread_counts(cores: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(cores) == counts


def test_auto_takes_the_winner(bundle: Path) -> None:
    _record(bundle)
    with open_session(bundle) as session:
        assert (session.backend, session.threads) == ("onnxruntime-exact", 1)
    with open_session(bundle, threads=1) as session:
        assert session.backend == "onnxruntime-exact"
    with open_session(bundle, "onnxruntime") as session:
        assert (session.backend, session.threads) == ("onnxruntime", 1)


def _another_machine(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "machine": "another"}))


def _another_bundle(path: Path) -> None:
    tiny_bundles.change(path.parent / "tiny", lambda manifest: manifest["tools"].update(other="1"))


@pytest.mark.parametrize("change", [_another_machine, _another_bundle])
def test_auto_ignores_what_was_measured_elsewhere(bundle: Path, change: Any) -> None:
    change(_record(bundle))
    with open_session(bundle) as session:
        assert (session.backend, session.threads) == ("onnxruntime", 1)


def test_auto_ignores_another_version_other_threads_and_a_missing_package(bundle: Path) -> None:
    _record(bundle, onnxruntime="0.1")
    with open_session(bundle) as session:
        assert session.backend == "onnxruntime"
    _record(bundle)
    with open_session(bundle, threads=2) as session:
        assert (session.backend, session.threads) == ("onnxruntime", 2)
    _record(bundle, "onnxruntime-cuda", onnxruntime="1")
    with open_session(bundle) as session:
        assert session.backend == "onnxruntime"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no valid JSON"),
        ('{"manifest_sha256": "", "machine": "", "measured": []}', "at least one measured setting"),
        ('{"machine": ""}', "missing field manifest_sha256, measured"),
    ],
)
def test_a_damaged_tuning_is_warned_of_and_not_used(
    bundle: Path, text: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    tuning_path(bundle).write_text(text)
    with pytest.raises(BundleError, match=message):
        read_tuning(bundle)
    with open_session(bundle) as session:
        assert session.backend == "onnxruntime"
        assert message in session.reason
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_tuning_for_more_threads_than_there_are_cores_is_not_used(bundle: Path) -> None:
    _record(bundle, "onnxruntime", threads=100_000)
    with open_session(bundle) as session:
        assert "tuning not used: threads (--threads)" in session.reason
