"""`perceiver-run bench`: its options, what it prints, and the trace that it writes."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_bundles

from perceiver_runtime import Session, UsageError, measure
from perceiver_runtime.benchmark import energy, latency
from perceiver_runtime.cli.main import main
from perceiver_runtime.telemetry import Sample

QUICK = ("--iterations", "3", "--warmup", "0", "--threads", "1", "--quiet")


def bench(bundle: Path, capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    assert main(["bench", str(bundle), *QUICK, "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_it_says_of_one_batch(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(bundle, capsys)
    assert (
        found["conditions"].items()
        >= {
            "bundle": "tiny",
            "model": "tiny",
            "precision": "fp32",
            "target": "cpu",
            "backend": "onnxruntime",
            "threads": 1,
        }.items()
    )
    assert {"perceiver-runtime", "python", "numpy", "onnxruntime"} <= found["conditions"]["versions"].keys()
    assert str(bundle) not in json.dumps(found)
    assert found["total"]["max"] == max(found["total"]["samples"])
    assert found["energy"] == {"reason": "not asked for (--power)", "status": "not measured"}
    assert (found["transfers"], found["cuda_graphs"], found["stable"]) == ("included", "not applicable", None)
    assert (found["callers"], found["open_loop"]) == ([], None)
    assert found["memory"]["peak_rss"] > 1 << 20
    assert found["throughput"] > 0


def test_several_batches_callers_and_a_rate(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--batch", "1,3", "--concurrency", "1,2", "--rate", "1000")
    first, second = bench(bundle, capsys, *more)
    assert (first["batch"], second["batch"]) == (1, 3)
    assert [level["callers"] for level in second["callers"]] == [1, 2]
    assert all(level["runs"] == len(level["latency"]["samples"]) >= 3 for level in second["callers"])
    assert second["open_loop"]["requests"] == 3
    assert main(["bench", str(bundle), *QUICK, *more]) == 0
    shown = capsys.readouterr().out
    for part in (
        "callers",
        "arrival to answer",
        "queue depth",
        "batch 3, 3 iterations",
        "peak RSS",
        "energy not measured",
    ):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_duration(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", str(bundle), "--duration", "0.05", "--rate", "200", "--warmup", "0", "--json", "--quiet"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["total"]["samples"]) <= 1e3 * found["iterations"] / found["throughput"]
    assert found["iterations"] / found["throughput"] >= 0.05
    assert found["open_loop"]["requests"] == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--batch", "1,0"), "expected an integer of 1 to"),
        (("--batch", "2,2"), "expected different integers, got 2,2"),
        (("--batch", "1,9"), "takes 1 to 4, got 9"),
        (("--concurrency", "1,1000"), "expected an integer of 1 to 256, got 1000"),
        (("--duration", "0"), "expected a number of 0.01 to 86400, got 0"),
        (("--duration", "nan"), "expected a number of 0.01 to 86400, got nan"),
        (("--rate", "fast"), "expected a number of 0.001 to 1000000, got fast"),
        (("--rate", "1000", "--duration", "1000"), "expected at most 200000 requests, got 1000000"),
        (("--iterations", "200001"), "expected an integer of 1 to 200000"),
        (("--trace", "none/trace.json"), "check the path"),
    ],
)
def test_wrong_use(bundle: Path, wrong: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(bundle), "--quiet", *wrong]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert not shown.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, r"batch \(--batch\).*expected at least 1, 0 and 1, got 0, 0, 3"),
        ({"warmup": -1}, r"warmup \(--warmup\).*got 1, -1, 3"),
        ({"iterations": 200_001}, r"iterations \(--iterations\): expected at most 200000, got 200001"),
        ({"duration": float("inf")}, r"duration \(--duration\): expected seconds from 0, got inf"),
        ({"callers": (1, 0)}, r"callers \(--concurrency\): expected numbers of 1 to 256, got 0"),
        ({"rate": 0.0}, r"rate \(--rate\): expected requests per second above 0, got 0"),
        ({"rate": 1e6, "duration": 1.0}, "expected at most 200000 requests, got 1000000"),
    ],
)
def test_numbers_are_checked_before_anything_runs(session: Session, options: dict[str, Any], message: str) -> None:
    session.close()
    with pytest.raises(UsageError, match=message):
        measure(session, **{"warmup": 0, "iterations": 3, **options})


def test_a_bundle_without_a_batch_takes_one(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bundles.change(copy, lambda m: m.update(json.loads(json.dumps(m).replace('"batch"', '"rows"'))))
    found = bench(copy, capsys)
    assert (found["batch"], found["iterations"]) == (1, 3)
    assert main(["bench", str(copy), *QUICK, "--batch", "2"]) == 2
    assert "this bundle has no dimension 'batch' and takes 1, got 2" in capsys.readouterr().err


def test_power_that_can_not_be_measured(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("perceiver_runtime.telemetry.processor.require_rapl.__defaults__", (tmp_path,))
    assert main(["bench", str(bundle), *QUICK, "--power"]) == 4
    assert "expected RAPL energy counters" in capsys.readouterr().err


class Counter:
    """10 W, for ever."""

    description = "a counter"
    power_mode: str | None = "performance"
    seconds = 0.0

    def sample(self) -> Sample:
        self.seconds += 1
        return Sample(self.seconds, total_power=10.0, temperature={"cpu": 55.0}, clock={"cpu": 2e9}, throttled=("cap",))


def test_power(bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "open_source", lambda _unit: Counter())
    monkeypatch.setattr(energy.PowerMeter.__init__, "__defaults__", (0.0,))
    monkeypatch.setattr(latency, "MIN_SECONDS", 0.0)
    found = bench(bundle, capsys, "--power", "--batch", "2")["energy"]
    assert found["mean_watts"] == found["idle_watts"] == pytest.approx(10.0)
    assert found["inferences"] == 6
    assert found["joules_per_inference"] == pytest.approx(10 * found["seconds"] / 6)
    assert found["net_joules_per_inference"] == pytest.approx(0)
    assert main(["bench", str(bundle), *QUICK, "--power"]) == 0
    shown = capsys.readouterr().out
    for part in ("J per inference", "10.0 W", "55 °C at most", "2000 MHz at least", "throttling cap", "a counter"):
        assert part in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_a_trace_nests_and_names_what_ran(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.json"
    more = ("--concurrency", "2", "--rate", "500", "--batch", "1,2", "--trace", str(path))
    assert main(["bench", str(bundle), *QUICK, *more]) == 0
    assert "ui.perfetto.dev" in capsys.readouterr().err
    content = json.loads(path.read_text())
    assert content["otherData"]["conditions"]["bundle"] == "tiny"
    events = content["traceEvents"]
    names = [e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"]
    kinds = ("components", "2 callers", "500 requests per second")
    assert names == [f"batch {batch}: {kind}" for batch in (1, 2) for kind in kinds]
    slices = [e for e in events if e["ph"] == "X"]
    first = [e for e in slices if e["pid"] == 1]
    assert [e["name"] for e in first if e["cat"] == "run"] == ["run 0", "run 1", "run 2"]
    blocks = [e["args"] for e in first if e["name"] == "block"]
    assert [place["call"] for place in blocks] == [0, 1, 2] * 3
    assert len({place["step"] for place in blocks}) == 1
    assert {"copy in: x", "copy out: logits", "encoder", "queue"} <= {e["name"] for e in first}
    for row in _rows(slices).values():
        _check_nesting(row)
    waits = [e for e in events if e["ph"] in "be"]
    assert {(e["pid"], e["id"]) for e in waits if e["ph"] == "b"} == {(pid, n) for pid in (3, 6) for n in range(3)}
    assert all(e["name"] == "queue" for e in waits)
    assert {e["name"] for e in events if e["ph"] == "C"} == {"queue depth"}


def _rows(slices: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    rows = defaultdict(list)
    for each in slices:
        rows[each["pid"], each["tid"]].append(each)
    return rows


def _check_nesting(row: list[dict[str, Any]]) -> None:
    """Every slice but a run is in one run; slices of a level do not overlap."""
    runs = [(e["ts"], e["ts"] + e["dur"]) for e in row if e["cat"] == "run"]
    inner = [(e["ts"], e["ts"] + e["dur"]) for e in row if e["cat"] != "run"]
    for level in (sorted(runs), sorted(inner)):
        assert all(before[1] <= after[0] + 0.002 for before, after in pairwise(level))
    for start, end in inner:
        assert any(begin - 0.002 <= start <= end <= stop + 0.002 for begin, stop in runs)


def test_a_warm_up_that_is_not_stable_is_said(
    session: Session, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("perceiver_runtime.benchmark.warmup.MAX_SECONDS", 0.0)
    assert measure(session, iterations=1).stable is False
    assert main(["bench", str(bundle), "--iterations", "2", "--quiet"]) == 0
    assert "NOT stable" in capsys.readouterr().out
