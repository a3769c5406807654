"""docs/hybrid.md has a row for each part of the hybrid family, and the test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hybrid.md").read_text(encoding="utf-8")
PARTS = (ROOT / "benchmarks" / "hybrid_parts.py").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([a-zA-Z ,-]+) \| `[\w./]+\.py` \| .* \| `(\w+)` \|$", flags=re.MULTILINE)
WHAT = re.compile(r'Part\(\s*"([^"]+)"')


def test_every_part_has_a_row_and_a_test() -> None:
    rows = ROW.findall(PAGE)
    assert [part for part, _ in rows] == WHAT.findall(PARTS)
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [test for _, test in rows if f"def {test}(" not in sources] == []


def test_no_figure_of_onnx_runtime_failed() -> None:
    """A backend that does not hold parity is shown as it is, and said to be of no use for the model."""
    table = [line.split("|") for line in PAGE.splitlines() if line.count("|") > 10]
    titles = [title.strip() for title in table[0]]
    failed = {titles[i] for row in table for i, cell in enumerate(row) if "FAILED" in cell}
    assert not {title for title in failed if title.startswith("onnxruntime")}
    for title in failed:
        backend, precision = title.split()
        assert f"- `{backend}` at {precision} does not hold parity" in PAGE
    assert "CHANGED" not in PAGE
