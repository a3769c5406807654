"""`perceiver-run selftest`: one file with everything, without names and paths of the machine."""

from __future__ import annotations

import getpass
import json
import platform
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_runtime.benchmark import energy
from perceiver_runtime.cli.main import main
from perceiver_runtime.errors import ReportError, UnavailableError
from perceiver_runtime.selftest.archive import INDEX, PARTS, read_report
from perceiver_runtime.selftest.private import Scrubber

QUICK = ("--iterations", "5", "--warmup", "0", "--threads", "1", "--quiet")
PLANTED = ("zq-user", "zq-host", "zq-home", "zq-owner")


def made_by(bundle: Path, out: Path, *more: str) -> Path:
    assert main(["selftest", str(bundle), "-o", str(out), *QUICK, *more]) == 0
    return out


def test_what_it_holds(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, index = read_report(made_by(bundle, tmp_path / "report.zip"))
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("parity passed on 1 golden samples", "ms p50", "energy not measured", "layers not measured"):
        assert part in shown
    assert set(index.members) == {f"{part}.json" for part in PARTS}
    assert made.parity.passed
    assert made.latency.iterations == 5
    assert made.bundle.sizes == {"batch": 1, "keys": 7, "queries": 10}
    assert made.machine.conditions.versions.keys() >= {"perceiver-runtime", "python", "numpy", "onnxruntime"}
    assert made.machine.telemetry.before.time == 0 < made.machine.telemetry.after.time
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        assert json.loads(archive.read(INDEX))["schema_version"] == 1
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_as_json(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_by(bundle, tmp_path / "report.zip", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["content"]["layers"]["status"] == "not measured"
    assert found["report"]["sha256"]


def test_names_and_paths_stay_here(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned = Path(shutil.copytree(bundle, tmp_path / "zq-owner" / "work" / "bundle"))
    for name, value in (("USER", "zq-user"), ("LOGNAME", "zq-user"), ("HOME", "/x/zq-home"), ("HOSTNAME", "zq-host")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(platform, "node", lambda: "zq-host.example")

    def refuse(_unit: str) -> Any:
        raise UnavailableError(
            f"{owned}/a.so and /opt/zq-owner/b.so, for zq-user on zq-host in /x/zq-home, ~/zq-owner/c"
        )

    monkeypatch.setattr(energy, "open_source", refuse)
    report = made_by(owned, tmp_path / "report.zip")
    with zipfile.ZipFile(report) as archive:
        content = "".join(archive.read(entry).decode() + str(entry) for entry in archive.infolist())
        assert not archive.comment
    assert not [word for word in (*PLANTED, str(tmp_path), tmp_path.parent.name, str(Path.cwd())) if word in content]
    assert "<path>/a.so and <path>, for <name> on <name> in <path>, <path>" in content


def test_what_is_taken_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("USER", "nvidia")
    monkeypatch.setattr(getpass, "getuser", lambda: "orin")
    scrubber = Scrubber(tmp_path / "bundle")
    kept = ["tensorrt", "nvidia", "pip install nvidia-ml-py", "read /sys/class/powercap/x/energy_uj", "rows/s", 3, None]
    kept[2] = "a rate of 3 rows/s, NVIDIA Jetson AGX Orin"
    assert scrubber.clean(kept) == kept
    assert scrubber.clean({"reason": "asked by nvidia and orin"}) == {"reason": "asked by <name> and <name>"}
    assert scrubber.clean("no /opt/lib/x.so") == "no <path>"
    assert scrubber.clean(["/encoder/block/MatMul"], paths=False) == ["/encoder/block/MatMul"]


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("-o", "none/report.zip"), 2, "check the path"),
        (("-o", "."), 2, "is a directory; name a file"),
        ((), 2, "the following arguments are required: -o/--out"),
        (("-o", "r.zip", "--iterations", "0"), 2, "expected an integer of 1 to"),
        (("-o", "r.zip", "--backend", "tensorrt"), 4, "tensorrt"),
    ],
)
def test_wrong_use(
    bundle: Path, tmp_path: Path, more: tuple[str, ...], code: int, message: str, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["selftest", str(bundle), "--quiet", *more]) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_parity_that_fails_is_said_by_the_exit_code(copy: Path, tmp_path: Path) -> None:
    from tiny_bundles import change

    def tighten(manifest: dict[str, Any]) -> None:
        for each in manifest["tolerances"]:
            each["rel_l2"] = each["noise"] = 1e-12

    assert main(["selftest", str(change(copy, tighten)), "-o", str(tmp_path / "r.zip"), *QUICK]) == 1
    assert not read_report(tmp_path / "r.zip")[0].parity.passed


def rewritten(report: Path, changes: dict[str, bytes | None]) -> Path:
    with zipfile.ZipFile(report) as archive:
        contents: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(report, "w") as archive:
        for name, content in {**contents, **changes}.items():
            if content is not None:
                archive.writestr(name, content)
    return report


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency.json": b"{}"}, "latency.json: expected sha256"),
        ({"parity.json": None}, "parity.json: missing"),
        ({"more.json": b"{}", "layers.json": None}, "layers.json: missing"),
        ({"more.json": b"{}"}, "expected 6 files of different names, got 7"),
        ({INDEX: None}, "without report.json"),
        ({INDEX: b"{"}, "report.json: no valid JSON"),
        ({INDEX: b"[]"}, "expected an object with an integer schema_version"),
        ({INDEX: b'{"schema_version": 2}'}, "self-test schema 2; this runtime reads 1"),
        ({INDEX: b'{"schema_version": 1}'}, "report.json: missing field"),
    ],
)
def test_a_damaged_report_is_refused(
    bundle: Path, tmp_path: Path, changes: dict[str, bytes | None], message: str
) -> None:
    report = rewritten(made_by(bundle, tmp_path / "report.zip"), changes)
    with pytest.raises(ReportError, match=r"report\.zip: ") as raised:
        read_report(report)
    assert message in str(raised.value)


def test_the_digest_of_the_whole_is_checked(bundle: Path, tmp_path: Path) -> None:
    report = made_by(bundle, tmp_path / "report.zip")
    with zipfile.ZipFile(report) as archive:
        index = json.loads(archive.read(INDEX))
    index["tools"]["perceiver-deploy"] = "9.9.9"
    with pytest.raises(ReportError, match=r"report\.json: expected sha256"):
        read_report(rewritten(report, {INDEX: json.dumps(index).encode()}))


def test_hashes_of_other_files_are_refused(bundle: Path, tmp_path: Path) -> None:
    report = made_by(bundle, tmp_path / "report.zip")
    with zipfile.ZipFile(report) as archive:
        index = json.loads(archive.read(INDEX))
    del index["members"]["parity.json"]
    with pytest.raises(ReportError, match=r"report\.json: expected hashes of .*parity\.json"):
        read_report(rewritten(report, {INDEX: json.dumps(index).encode()}))


def test_a_vast_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "report.zip").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ReportError, match=r"expected at most .* MiB, which a report never has"):
        read_report(tmp_path / "report.zip")


def test_damaged_bytes_are_refused(bundle: Path, tmp_path: Path) -> None:
    content = made_by(bundle, tmp_path / "report.zip").read_bytes()
    random = np.random.default_rng(0)
    damaged = tmp_path / "damaged.zip"
    for place in random.integers(0, len(content), 60):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with suppress(ReportError):  # the dates of a zip may change
            assert read_report(damaged) == read_report(tmp_path / "report.zip")
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(ReportError):
        read_report(damaged)


def test_other_compression_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "report.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(INDEX, "{}")
    with pytest.raises(ReportError, match="without other compression than deflate"):
        read_report(tmp_path / "report.zip")


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.zip").write_bytes(b"PK")
    with pytest.raises(ReportError, match="expected the zip file that perceiver-run selftest wrote"):
        read_report(tmp_path / "report.zip")
