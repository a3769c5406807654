"""The benchmark scripts: tables follow from results, and what of the GPU script needs no GPU."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _script(relative: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{Path(relative).stem}", BENCHMARKS / relative)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(BENCHMARKS) not in sys.path:  # scripts import their neighbours
        sys.path.append(str(BENCHMARKS))
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_documents_have_the_tables_that_the_results_give() -> None:
    tables = _script("tables.py")
    texts = [document.read_text(encoding="utf-8") for document in tables.DOCUMENTS]
    assert [tables.filled(text) for text in texts] == texts
    assert {path.stem for path in tables.RESULTS.glob("*.json")} <= set(tables.TABLES)
    for name in (*tables.TABLES, *tables.SUMMARIES):
        assert sum(text.count(f"<!-- benchmarks/tables.py: {name} begin -->") for text in texts) == 1, name


def test_the_page_of_published_modules_is_made_of_its_record() -> None:
    page = _script("wild/page.py")
    record = json.loads((BENCHMARKS / "results" / "wild" / "modules.json").read_text(encoding="utf-8"))
    catalogue = importlib.import_module("wild.catalogue").CATALOGUE
    assert {entry.slug for entry in catalogue} == set(record["modules"])
    written = (BENCHMARKS.parent / "docs" / "wild.md").read_text(encoding="utf-8")
    assert page.page(record, catalogue) == written


def test_every_record_is_made_by_one_command() -> None:
    questions = _script("run.py").QUESTIONS
    assert all((BENCHMARKS / question.arguments[0]).is_file() for question in questions.values())
    sources = {path.name: path.read_text(encoding="utf-8") for path in BENCHMARKS.glob("*.py")}
    writers = {name for name, text in sources.items() if re.search(r"^from record import .*\bwrite\b", text, re.M)}
    assert {question.arguments[0] for question in questions.values()} == writers


def test_a_table_shows_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = _script("tables.py")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.made("peers-language-perceiver") == tables.ABSENT
    ratio = {"median": 2.0, "low": 1.5, "high": 2.5}
    result = {
        "machine": {"name": "M", "instructions": ["avx2"], "load": 0.1},
        "versions": {"torch": "2"},
        "date": "2026-01-01",
        "threads": 2,
        "rounds": 3,
        "rows": [{"variant": "v", "milliseconds": 12.0, "relative_l2": 0.01, "ratios": {"torch eager": ratio}}],
    }
    (tmp_path / "peers-language-perceiver.json").write_text(json.dumps(result))
    made = tables.made("peers-language-perceiver")
    assert "| v | 12 | 1.0e-02 | 2.00 (1.50 to 2.50) |" in made
    assert "M (avx2), load 0.1 when it was recorded; 3 rounds, 2 threads; torch 2; 2026-01-01." in made


def test_the_fastest_of_a_group_is_a_reference() -> None:
    record = _script("record.py")
    times = {"eager": [4.0, 4.0], "slow": [3.0, 3.0], "fast": [2.0, 2.0], "ours": [1.0, 1.0]}
    found = record.ratios(times, ("eager", "absent"), {"best peer": ("eager", "slow", "fast"), "none": ("absent",)})
    assert {name: each.median for name, each in found["ours"].items()} == {"eager": 4.0, "best peer (fast)": 2.0}
    assert {name: each.median for name, each in found["fast"].items()} == {"eager": 2.0}


def test_peers_tables_have_a_column_for_every_reference() -> None:
    layouts = _script("table_layouts.py")
    ratio = {"median": 2.0, "low": 1.5, "high": 2.5}
    rows = [
        {"variant": "torch eager", "seconds": 2.0, "peak_bytes": 3e9, "ratios": {"best peer (p)": ratio}},
        {"variant": "p", "seconds": 1.0, "peak_bytes": 1e9, "ratios": {"torch eager": ratio}},
        {
            "variant": "ours",
            "seconds": 1.0,
            "peak_bytes": 1e9,
            "ratios": {"torch eager": ratio, "best peer (p)": ratio},
        },
    ]
    made = layouts.optical_flow({"rows": rows})
    assert "| Variant | s | Peak RSS, GB | Speed-up over torch eager | Speed-up over best peer (p) |" in made
    assert "| torch eager | 2.0 | 3.00 |  | 2.00 (1.50 to 2.50) |" in made


def test_forms_of_attention_stand_side_by_side() -> None:
    row = {
        "model": "m",
        "precision": "fp32",
        "milliseconds": {"operator": 1.0, "products": 2.0},
        "ratio": {"median": 2.0, "low": 1.5, "high": 2.5},
        "peak_bytes": {"products": 3e9, "operator": 4e6},
        "relative_l2": 1e-7,
    }
    made = _script("table_layouts.py").attention_form({"rows": [row]})
    assert "| Layer of | Precision | products, ms | operator, ms | products / operator |" in made
    assert "| m | fp32 | 2.0 | 1.0 | 2.00 (1.50 to 2.50) | 3,000 | 4 | 1e-07 |" in made


def test_the_gpu_script_runs_where_there_is_no_gpu(tmp_path: Path) -> None:
    """On the processor in place of it: every variant runs, its answer is the model's, and the tables follow."""
    name = "fashion-perceiver"
    command = [sys.executable, str(BENCHMARKS / "gpu" / "families.py"), str(tmp_path), name]
    options = ["--rounds", "2", "--device", "cpu", "--results", str(tmp_path), "--skip", "torch.compile"]
    subprocess.run([*command, *options], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    record = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    found = record["models"][name]
    errors = {row["variant"]: row["relative_l2"] for row in found["rows"]}
    assert not found["failed"]
    assert all(0 < error < (1e-5 if "fp32" in variant else 5e-3) for variant, error in errors.items())
    assert all(checked["passed"] for checked in found["parity"].values())
    table = _script("gpu_tables.py").gpu(record)
    (row,) = (line for line in table.splitlines() if line.startswith(f"| {name}, fp16 |"))
    assert "passed" in row


def test_a_model_that_fails_on_the_gpu_is_named() -> None:
    found = {"rows": [], "parity": {}, "cuda_graphs": {}, "failed": {"torch eager, fp32": "RuntimeError: no"}}
    shown = list(_script("gpu_tables.py").failures({"models": {"m": found}, "left_out": ["n"]}))
    assert shown == ["- m: torch eager, fp32: not measured (RuntimeError: no)", "- not measured: n"]
