"""Reports of boards: imported beside their forecasts, and refused where they were doctored. SIMULATED device."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tiny_bundles
from engines.simulation.jetson import simulated_jetson

from perceiver_deploy.boards.compare import DEVICES, board_of
from perceiver_deploy.boards.results import BoardResult, add_result, read_result, read_results, store_path
from perceiver_deploy.cli.main import main
from perceiver_exporters.engines import build
from perceiver_exporters.roofline.forecast import boards, forecast
from perceiver_runtime import conditions
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.cli.main import main as device
from perceiver_runtime.errors import CheckError, ReportError, UsageError
from perceiver_runtime.execution import choice
from perceiver_runtime.selftest import run
from perceiver_runtime.selftest.archive import INDEX, _index, _sha256, read_report
from perceiver_runtime.selftest.records import Engines, content_sha256
from perceiver_runtime.telemetry import Sample

ORIN = "AGX Orin 64GB"
Edit = Callable[[dict[str, Any]], object]


class Orin:
    """Sensors of a board, without a power sensor."""

    description = "NVIDIA Jetson AGX Orin Developer Kit, power mode MAXN"
    power_mode: str | None = "MAXN"
    now = 100.0

    def sample(self) -> Sample:
        self.now += 1000
        return Sample(self.now, temperature={"gpu": -3.0}, memory_used=10**9, memory_total=65_900_000_000)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On the workstation, without engines."""
    folder = tmp_path_factory.mktemp("boards") / "bundle"
    return tiny_bundles.write(folder, tiny_bundles.full_model(), tiny_bundles.feeds())


@pytest.fixture(scope="module")
def report(bundle: Path) -> Path:
    """Of a copy of the bundle with engines, on the simulated device."""
    jetson, path = simulated_jetson(), bundle.parent / "report.zip"
    copy = tiny_bundles.write(bundle.parent / "copy", tiny_bundles.full_model(), tiny_bundles.feeds())
    jetson.build(copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "open_backend", lambda *_: jetson.backend())
        for module in (run, conditions):
            patch.setattr(module, "open_sensors", lambda _unit: Orin())
        assert device(["selftest", str(copy), "-o", str(path), "--iterations", "8", "--warmup", "0", "--quiet"]) == 0
    return path


def doctored(report: Path, out: Path, member: str, edit: Edit) -> Path:
    """A copy with one member edited, and hashes that agree with it."""
    with zipfile.ZipFile(report) as archive:
        contents = {name: archive.read(name) for name in archive.namelist() if name != INDEX}
    record = json.loads(contents[member])
    edit(record)
    contents[member] = json.dumps(record).encode()
    index = _index({name: _sha256(content) for name, content in contents.items()}, "0.1.0")
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(INDEX, json.dumps(index.__dict__))
        for name, content in contents.items():
            archive.writestr(name, content)
    return out


def test_beside_its_forecast(report: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_result(report, bundle)
    assert (found.board, found.power_mode, found.backend, found.joules) == (ORIN, "MAXN", "tensorrt", None)
    assert found.comparison is not None
    with load_bundle(bundle) as loaded:
        made, _ = read_report(report)
        expected = forecast(loaded, ORIN, sizes=made.bundle.sizes)
    reached = found.comparison.run
    assert reached.optimistic_ms == pytest.approx(expected.optimistic_s * 1e3)
    assert reached.measured_ms == found.p50
    assert reached.verdict in ("within", "slower than at worst")
    assert 0 < reached.compute < 1 > reached.bandwidth > 0
    assert [each.name for each in found.comparison.components] == [each.component for each in expected.components]
    store = tmp_path / "new" / "boards.jsonl"
    arguments = ["boards", "import", str(report), "--bundle", str(bundle), "--store", str(store)]
    for _ in range(2):
        with suppress(SystemExit):
            main(arguments)
    shown = capsys.readouterr().out
    for part in ("Row for docs/jetson.md", f"| {ORIN} | MAXN | tensorrt 10.3.0 | tiny | fp32 |", "of bandwidth"):
        assert part in shown
    assert read_results(store) == (found,)
    with pytest.raises(SystemExit, match="0"):
        main(["boards", "list", "--store", str(store), "--json"])
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["board"] == ORIN
    with pytest.raises(SystemExit, match="0"):
        main(["boards", "list", "--store", str(store)])
    assert "30% to 80% of the peak" in " ".join(capsys.readouterr().out.split())


def test_a_kit_has_the_digest_of_its_bundle(bundle: Path, tmp_path: Path) -> None:
    kit = build(bundle, "jetson-orin", kit=tmp_path / "kit").kit
    assert kit is not None
    with load_bundle(bundle) as own, load_bundle(kit) as copied:
        assert content_sha256(own.manifest) == content_sha256(copied.manifest)


def test_layers_and_tactics_are_in_it(report: Path) -> None:
    made, _ = read_report(report)
    assert isinstance(made.layers, Engines)
    assert {engine.component for engine in made.layers.engines} == set(made.latency.components)
    assert all(engine.layers["Layers"] for engine in made.layers.engines)


def test_without_its_bundle_it_is_measured_only(report: Path, tmp_path: Path) -> None:
    found = read_result(report)
    assert found.comparison is None
    assert found.reason == "no bundle was given: --bundle adds the forecast"


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"source": "NVIDIA Jetson Nano"}, "the target table does not have this device"),
        ({"before": {"time": 0, "memory_total": 32_000_000_000}}, "the memory of this one is 32 GB"),
        ({"before": {"time": 0}}, "the memory of this one is not known"),
    ],
)
def test_other_boards_are_measured_only(
    report: Path, bundle: Path, tmp_path: Path, machine: dict[str, Any], reason: str
) -> None:
    path = doctored(report, tmp_path / "r.zip", "machine.json", lambda m: m["telemetry"].update(machine))
    found = read_result(path, bundle)
    assert (found.board, found.comparison) == (None, None)
    assert reason in found.reason


def test_every_board_of_the_target_table_names_itself() -> None:
    assert set(DEVICES) == {board.name for _, board in boards()}


def test_a_processor_is_no_board(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, store = tmp_path / "r.zip", tmp_path / "store.jsonl"
    quick = ("--iterations", "5", "--warmup", "0", "--threads", "1", "--quiet")
    assert device(["selftest", str(bundle), "-o", str(path), *quick]) == 0
    with pytest.raises(SystemExit, match="0"):
        main(["boards", "import", str(path), "--bundle", str(bundle), "--store", str(store)])
    shown = capsys.readouterr().out
    assert "measured only: it ran on the processor (onnxruntime)" in shown
    assert "(measured only)" in shown
    assert "processor" in str(board_of(read_report(path)[0]))


def shrink(record: dict[str, Any]) -> None:
    """All that is stated of complete runs, a thousandth of it: consistent in itself."""
    total = record["total"]
    for key, value in total.items():
        total[key] = [v / 1000 for v in value] if isinstance(value, list) else value / 1000
    record["throughput"] *= 1000


def energy(**changes: Any) -> Edit:
    stated = {
        "joules_per_inference": 1.0,
        "net_joules_per_inference": 0.5,
        "mean_watts": 10.0,
        "idle_watts": 5.0,
        "peak_watts": 11.0,
        "seconds": 0.8,
        "inferences": 8,
        "source": "rails",
    }
    return lambda record: record.update(energy={**stated, **changes})


ZERO = {**dict.fromkeys(("p50", "p90", "p95", "p99", "max", "mean"), 0.0), "interval": [0.0, 0.0], "samples": [0.0] * 8}
DOCTORED: tuple[tuple[str, Edit, str], ...] = (
    ("latency.json", lambda r: r["total"].update(p50=0.001), "p50 of total do not follow from its samples"),
    ("latency.json", lambda r: r["total"]["samples"].__setitem__(0, 0.5), "of total do not follow"),
    ("latency.json", lambda r: r["components"]["head"].update(p99=1e-9), "p99 of head do not follow"),
    ("latency.json", shrink, "components take"),
    ("latency.json", lambda r: r.update(throughput=1e9), "rows/s, but its samples allow"),
    ("latency.json", lambda r: r.update(iterations=9), "expected 9 samples of every series"),
    ("latency.json", lambda r: r["overhead"]["samples"].__setitem__(0, -1.0), "expected a number from 0, got -1"),
    ("latency.json", lambda r: r["total"].update(mean=float("nan")), "no valid JSON"),
    ("latency.json", lambda r: r["total"].update(samples=[]), "total has no samples"),
    ("latency.json", lambda r: r["memory"].update(peak_rss=-1), "memory.peak_rss: expected a number from 0"),
    ("latency.json", lambda r: r.update(extra=1), "unknown field extra"),
    ("latency.json", lambda r: r.pop("total"), "missing field total"),
    ("latency.json", lambda r: r.update(machine="another"), "are not those of its conditions"),
    ("latency.json", energy(joules_per_inference=0.1), "joules_per_inference does not follow"),
    ("latency.json", energy(inferences=80), "expected 8 inferences"),
    ("latency.json", energy(seconds=1e-9, joules_per_inference=1.25e-9, net_joules_per_inference=6.25e-10), "recorded"),
    (
        "latency.json",
        energy(seconds=8e9, joules_per_inference=1e10, net_joules_per_inference=5e9),
        "recorded for 8e+09",
    ),
    ("machine.json", lambda r: r["telemetry"]["after"].update(time=1e-6), "telemetry: 1e-06 s from first to last"),
    ("machine.json", lambda r: r["conditions"].update(power_mode="15W"), "are not those of the latency"),
    ("machine.json", lambda r: r["telemetry"].update(power_mode="15W"), "power mode is not that of the conditions"),
    ("parity.json", lambda r: r["reports"][0].update(cosine=2.0), "expected a cosine of -1 to 1, got 2"),
    ("parity.json", lambda r: r["reports"][0].update(rel_l2=1.0), "does not follow from its errors"),
    ("parity.json", lambda r: r["reports"][0].update(passed=False), "the verdict does not follow"),
    ("parity.json", lambda r: r.update(reports=[]), "nothing was compared"),
    ("parity.json", lambda r: r["reports"].pop(), "was not compared"),
    ("parity.json", lambda r: r["reports"][0].update(tolerance=0.5), "is not the bundle's"),
    ("bundle.json", lambda r: r.update(sha256="0" * 64), "of a bundle with digest 000000000000"),
    ("bundle.json", lambda r: r.update(precision="int8"), "precision and target are not"),
    ("bundle.json", lambda r: r["sizes"].update(keys=1), "the bundle's golden sample"),
    ("latency.json", lambda r: r["components"]["head"].update(ZERO), "times above 0"),
    ("layers.json", lambda r: r["engines"][0].update(component="other"), "'other' is no component"),
    ("layers.json", lambda r: r["engines"][0]["profile"][1].update(percentage=1.0), "percentages do not add up"),
    ("layers.json", lambda r: r["engines"][0]["profile"][1].update(medianMs=-1), "expected the times of its layers"),
)


@pytest.mark.parametrize(("member", "edit", "message"), DOCTORED)
def test_a_doctored_report_is_refused(
    report: Path, bundle: Path, tmp_path: Path, member: str, edit: Edit, message: str
) -> None:
    """Even with hashes that agree with it."""
    path = doctored(report, tmp_path / "report.zip", member, edit)
    with pytest.raises(ReportError) as raised:
        read_result(path, bundle)
    assert message in str(raised.value)


def test_a_right_energy_is_taken(report: Path, tmp_path: Path) -> None:
    found = read_result(doctored(report, tmp_path / "r.zip", "latency.json", energy()))
    assert found.joules == 1.0


def test_failed_parity_is_no_result(report: Path, tmp_path: Path) -> None:
    def fail(record: dict[str, Any]) -> None:
        record["passed"] = record["reports"][0]["passed"] = False
        record["reports"][0]["rel_l2"] = 2.0

    with pytest.raises(CheckError, match="parity failed on the board"):
        read_result(doctored(report, tmp_path / "r.zip", "parity.json", fail))


def test_nothing_is_kept_of_a_refused_report(report: Path, bundle: Path, tmp_path: Path, capsys: Any) -> None:
    store = tmp_path / "boards.jsonl"
    path = doctored(report, tmp_path / "r.zip", "latency.json", shrink)
    with pytest.raises(SystemExit, match="3"):
        main(["boards", "import", str(path), "--store", str(store)])
    assert "was changed or damaged" in " ".join(capsys.readouterr().err.split())
    assert not store.exists()
    with pytest.raises(SystemExit, match="2"):
        main(["boards", "import", str(tmp_path / "none.zip"), "--store", str(store)])


def test_the_store(report: Path, tmp_path: Path, capsys: Any) -> None:
    store = tmp_path / "boards.jsonl"
    with pytest.raises(SystemExit, match="0"):
        main(["boards", "list", "--store", str(store)])
    assert "no results in" in capsys.readouterr().out
    found: BoardResult = read_result(report)
    add_result(store, found)
    store.write_bytes(store.read_bytes() + b"{}\n")
    with pytest.raises(ReportError, match="line 2: expected a result"):
        read_results(store)
    assert store_path({"XDG_DATA_HOME": "/data"}) == Path("/data/perceiver-deploy/boards.jsonl")
    assert store_path({"HOME": "/home/x"}) == Path("/home/x/.local/share/perceiver-deploy/boards.jsonl")


def test_a_user_without_a_home_names_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(_self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(UsageError, match="--store FILE"):
        store_path({})
