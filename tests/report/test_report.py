"""What a report holds, what it says of faults, and that all of its forms come from the same data."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

import perceiver_deploy
from perceiver_deploy.api.report import names
from perceiver_deploy.api.reporting.page import page
from perceiver_deploy.api.reporting.summary import plain_table
from perceiver_deploy.cli.main import main
from perceiver_runtime.benchmark.load import OtherLoad
from perceiver_runtime.benchmark.report import Energy, NotMeasured
from perceiver_runtime.cli.report import to_json
from perceiver_runtime.errors import BundleError, UsageError

pytestmark = pytest.mark.xdist_group("report")
HEADINGS = (
    "Model card",
    "Components",
    "Parity",
    "Error growth",
    "Accuracy",
    "Latency",
    "Roofline",
    "Size, memory, energy",
    "Forecast for boards",
    "Environment",
)
VOID = {"meta", "link", "br", "img"}


class Outline(HTMLParser):
    """The elements of a page: their names, the ids, and whether every element is closed where it was opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.ids, self.links, self.texts = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("href", "src") if name in given]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_first_table_has_a_row_for_the_reference_and_each_bundle(whole):
    rows = whole.data.summary
    assert [(row.bundle, row.precision, row.backend) for row in rows] == [
        ("", "fp32", "PyTorch eager"),
        ("fp32", "fp32", "onnxruntime"),
        ("fp16", "fp16", "onnxruntime"),
    ]
    for row in rows:
        assert row.accuracy_name == "accuracy"
        assert row.accuracy > 0.85
        assert row.p95_ms >= row.p50_ms > 0
        assert row.throughput > 0
        assert row.device
    for row in rows[1:]:
        assert row.speedup_low <= row.speedup <= row.speedup_high
        assert row.parity == "passed"
        assert row.size > 100_000
        assert abs(row.accuracy_difference) < 0.01
    assert whole.data.passed


def test_every_section_is_there_and_says_how_to_repeat_it(whole):
    text = whole.page
    for heading in HEADINGS:
        assert f"<h3>{heading}</h3>" in text
    for command in ("inspect", "verify", "growth", "evaluate", "bench", "report"):
        assert f"perceiver-export {command} fp32" in text


def test_every_chart_has_a_title_a_description_and_a_table(whole, faulty):
    for made in (whole, faulty):
        charts = re.findall(r"<figure>.*?</figure>", made.page, flags=re.DOTALL)
        assert len(charts) >= 3
        for chart in charts:
            assert chart.count('role="img"') == 2
            for name in ("title", "desc"):
                texts = re.findall(rf"<{name} id=[^>]*>([^<]*)</{name}>", chart)
                assert len(texts) == 2
                assert all(texts)
            assert "<details>" in chart
            assert "<td" in chart


def test_the_page_is_whole_and_needs_nothing_else(whole, faulty):
    for made in (whole, faulty):
        text = made.page
        outline = Outline(text)
        assert outline.open == []
        assert len(outline.ids) == len(set(outline.ids))
        assert all(link.startswith("#") or link == "data:," for link in outline.links)
        assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
        assert "script" not in outline.names
        assert "img" not in outline.names
        assert "url(" not in text
        assert "@import" not in text
        assert len(text.encode()) < 2_000_000


def test_nothing_tells_where_it_was_made(whole, faulty):
    for made in (whole, faulty):
        for text in (made.page, to_json(made.data)):
            assert str(made.path.parent) not in text


def test_the_page_and_the_json_are_made_from_the_data_alone(whole):
    assert page(whole.data) == whole.page
    content = json.loads(to_json(whole.data))
    assert content["summary"][2]["bundle"] == "fp16"
    assert len(content["models"][0]["bundles"][0]["runs"][0]["against"]["session"]["samples"]) == 3
    assert content["failures"] == []


def test_names_of_a_stranger_are_text(faulty):
    outline = Outline(faulty.page)
    texts = "".join(outline.texts)
    assert "<script>alert(1)</script>" in texts
    assert "hostile<script>" in texts


def test_faults_fail_the_report_which_is_written_all_the_same(faulty):
    data = faulty.data
    assert not data.passed
    assert {row.bundle: row.parity for row in data.summary} == {
        "hostile<script>": "passed",
        "wrong": "failed",
        "damaged": "damaged",
    }
    assert any(failure.startswith("wrong: parity failed: ") for failure in data.failures)
    assert any(failure.startswith("damaged can't be opened: ") for failure in data.failures)
    assert f"{len(data.failures)} checks failed" in faulty.page
    assert "DAMAGED" in faulty.page
    assert "FAILED" in faulty.page


def test_what_was_not_measured_says_why(faulty):
    bundle = faulty.data.models[0].bundles[0]
    assert isinstance(bundle.accuracy, NotMeasured)
    assert "expected the weights of the bundle" in bundle.accuracy.reason
    assert "not measured: " in faulty.page
    row = faulty.data.summary[0]
    assert row.accuracy is None
    assert row.speedup is None
    assert {"accuracy", "speedup"} <= set(row.reasons)
    table = plain_table([row])
    assert table.texts[0].count("not measured") >= 3


def test_without_the_reference_nothing_fails(faulty, tmp_path):
    out = tmp_path / "report.html"
    made = perceiver_deploy.report(
        faulty.path.parent / "hostile<script>", out, with_reference=False, batch=(1, 2), iterations=2, warmup=0
    )
    assert made.passed
    assert [row.batch for row in made.summary] == [1, 2]
    assert made.summary[0].p50_ms > 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_what_a_device_measured_is_a_row_of_its_own(whole, tmp_path):
    latency = whole.data.models[0].bundles[1].runs[0].latency
    board = dataclasses.replace(latency.conditions, machine="Jetson <Orin>", instructions=("compute capability 8.7",))
    energy = Energy(0.25, 0.2, 12.0, 8.0, None, 10.0, 500, "rail VDD_IN")
    measured = dataclasses.replace(latency, conditions=board, energy=energy, backend="tensorrt", threads=None)
    (tmp_path / "orin.json").write_text(to_json(measured), encoding="utf-8")
    made = perceiver_deploy.report(
        whole.path.parent / "fp16",
        tmp_path / "report.html",
        with_reference=False,
        iterations=2,
        warmup=0,
        measured=[tmp_path / "orin.json"],
    )
    here, there = made.summary
    assert (there.bundle, there.backend, there.device) == ("fp16", "tensorrt", "Jetson <Orin>, compute capability 8.7")
    assert (there.p50_ms, there.energy_joules) == (latency.total.p50, 0.25)
    assert here.energy_joules is None
    assert made.devices == {"orin.json": (measured,)}
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Jetson &lt;Orin&gt;, compute capability 8.7" in text
    assert "--bench orin.json" in made.command


def test_a_file_that_holds_something_else_is_refused_before_anything_runs(whole, tmp_path):
    (tmp_path / "other.json").write_text('{"total": 3}', encoding="utf-8")
    with pytest.raises(BundleError, match="expected the output of perceiver-run bench --json"):
        perceiver_deploy.report(whole.path.parent / "fp32", measured=[tmp_path / "other.json"])


def test_the_command_writes_the_page_prints_the_table_and_exits_1_for_a_failed_check(faulty, tmp_path, capsys):
    wrong, out = faulty.path.parent / "wrong", tmp_path / "report.html"
    options = ("--no-reference", "--iterations", "2", "--warmup", "0", "--quiet", "-o", str(out))
    with pytest.raises(SystemExit) as ended:
        main(["report", str(wrong), *options, "--markdown"])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("| model |")
    assert "FAILED: wrong: parity failed" in printed.err
    assert out.read_text(encoding="utf-8").rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("bundles", "options", "message"),
    [
        ([], {}, "at least one bundle"),
        (["nowhere"], {}, "nowhere"),
        (["."], {"iterations": 1}, "--iterations"),
        (["."], {"batch": 0}, "--batch"),
        (["."], {"backends": ()}, "backend"),
        (["."], {"out": "."}, "name a file"),
    ],
)
def test_wrong_use_is_refused_before_anything_runs(bundles, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(message)):
        perceiver_deploy.report(bundles, **options)


def test_bundles_are_named_by_what_tells_them_apart(tmp_path):
    paths = [tmp_path / "a" / "int8", tmp_path / "b" / "int8", tmp_path / "fp32", tmp_path / "fp32"]
    assert list(names(paths)) == ["a/int8", "b/int8", "fp32"]


def test_memory_is_measured_and_energy_says_why_not(whole):
    for bundle in whole.data.models[0].bundles:
        latency = bundle.runs[0].latency
        assert 20e6 < latency.memory.peak_rss < 1e9
        assert isinstance(latency.energy, Energy) or "measure energy" in latency.energy.reason


def test_a_busy_machine_is_named(whole):
    (model,) = whole.data.models
    for cores in (1.5, 0.0):
        load = OtherLoad(cores, 2)
        bundles = tuple(
            dataclasses.replace(bundle, runs=tuple(_under(run, load) for run in bundle.runs))
            for bundle in model.bundles
        )
        made = page(dataclasses.replace(whole.data, models=(dataclasses.replace(model, bundles=bundles),)))
        assert ("Other programs used 1.5 of 2 cores while times were measured" in made) == bool(cores)


def _under(run, load):
    changed = {name: dataclasses.replace(getattr(run, name), others=load) for name in ("against", "latency")}
    return dataclasses.replace(run, **changed)


def test_a_field_that_is_none_has_a_reason(whole):
    for row in whole.data.summary[1:]:
        empty = {f.name for f in dataclasses.fields(row) if getattr(row, f.name) is None}
        assert empty - {"p50_low_ms", "p50_high_ms"} <= set(row.reasons)  # few runs bound no median
