"""Tables fit 80 columns, have no blanks at the ends of lines, and lose no cell where they wrap."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from perceiver_deploy.cli.main import group
from perceiver_runtime.cli.main import main as device
from perceiver_runtime.cli.table import markdown, table

pytestmark = pytest.mark.xdist_group("cli")
WIDTH = 80

TABLES = (
    ("models",),
    ("doctor",),
    ("export", "language-identifier", "-o", "{new}", "--dry-run"),
    ("verify", "{int8}"),
    ("verify", "{fp32}"),
    ("inspect", "{int8}"),
    ("inspect", "{int8}", "--rules"),
    ("inspect", "{int8-dynamic-reduced}", "--precision"),
    ("inspect", "{int8}", "--forecast"),
    ("check", "{int8}", "--target", "rtx"),
    ("evaluate", "{fp32}", "{int8}", "{fp16}", "--per-class"),
    ("bench", "{fp32}", "--iterations", "3"),
    ("growth", "{fp16}"),
)
DEVICE_TABLES = (("inspect", "{int8}"), ("verify", "{int8}"), ("bench", "{int8}", "--iterations", "3"))


def _fits(text: str) -> None:
    assert text.strip()
    for line in text.splitlines():
        assert len(line) <= WIDTH, line
        assert line == line.rstrip(), line


@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
def test_tables_fit_a_terminal(
    arguments: tuple[str, ...], bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    places = {**bundles, "new": tmp_path / "new"}
    given = [argument.format(**places) for argument in arguments]
    shown = CliRunner().invoke(group, [*given, "--quiet"], standalone_mode=False)
    assert shown.exception is None
    _fits(shown.stdout)
    as_markdown = CliRunner().invoke(group, [*given, "--quiet", "--markdown"], standalone_mode=False)
    assert re.search(r"^\| :?---:? \|", as_markdown.stdout, re.MULTILINE)


@pytest.mark.parametrize("arguments", DEVICE_TABLES, ids=" ".join)
def test_tables_on_the_device_fit(
    arguments: tuple[str, ...],
    bundles: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    given = [argument.format(**bundles) for argument in arguments]
    assert device([*given, "--quiet"]) == 0
    captured = capsys.readouterr()
    _fits(captured.out)
    assert device([*given, "--quiet", "--markdown"]) == 0
    assert "| :--- |" in capsys.readouterr().out


def test_two_forms_at_once_are_refused(bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert device(["verify", str(bundles["fp32"]), "--json", "--markdown"]) == 2
    assert "--json" in capsys.readouterr().err


TEXT = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=4), st.integers(60, 120))
def test_a_table_of_any_text_fits(rows: list[tuple[str, str, str]], width: int) -> None:
    for line in table(("name:<", "what or why not:<", "more:<?"), rows, width).splitlines():
        assert len(line) <= width
        assert line == line.rstrip()


def test_columns_that_may_be_left_out_are_named() -> None:
    columns = ("name:<", "n", "wide:<?", "wider:<?")
    row = ("encoder", "12", "x" * 30, "y" * 30)
    assert "Not shown" not in table(columns, [row], 90)
    narrow = table(columns, [row], 60)
    assert "x" * 30 in narrow
    assert "y" * 30 not in narrow
    assert "Not shown at this width: wider." in narrow


def test_numbers_are_never_broken_and_lines_of_a_cell_stay_lines() -> None:
    shown = table(("name:<", "p50"), [(("first", "second"), "1234567.125"), ("x\ny", "1")], 20)
    assert "1234567.125" in shown
    assert [line.split()[0] for line in shown.splitlines()[2:]] == ["first", "second", "x\\ny"]


def test_a_table_of_many_numbers_becomes_several() -> None:
    columns = ("output:<", "metric:<", *(f"bundle {i}" for i in range(6)))
    row = ("logits", "accuracy", *(f"0.896{i} (+0.000{i})" for i in range(6)))
    shown = table(columns, [row], WIDTH)
    _fits(shown)
    assert shown.count("logits") == shown.count("accuracy") > 1
    assert all(cell in shown for cell in row)


def test_markdown_has_all_columns() -> None:
    assert markdown(("name:<", "n:?"), [(("a", "b|c"), "1")]) == "| name | n |\n| :--- | ---: |\n| a<br>b\\|c | 1 |"


def test_a_wider_terminal_shows_more(bundles: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "perceiver_runtime", "verify", str(bundles["fp32"])]
    wide = subprocess.run(command, env={**os.environ, "COLUMNS": "140"}, capture_output=True, text=True, check=True)
    assert "teacher-forced" in wide.stdout
    assert "Not shown" not in wide.stdout


def test_one_word_for_one_fact(bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(bundles["fp32"])
    assert device(["inspect", bundle]) == 0
    assert "pretrained weights" in capsys.readouterr().out
    shown = CliRunner().invoke(group, ["inspect", bundle], standalone_mode=False)
    assert "pretrained weights" in " ".join(shown.stdout.split())
    assert json.loads(CliRunner().invoke(group, ["inspect", bundle, "--json"]).stdout)["source"]["pretrained"] is True
