"""Fill the tables of README.md, docs/performance.md and docs/results from the records in benchmarks/results.

    python benchmarks/tables.py [--check]

Each table stands between the markers `<!-- benchmarks/tables.py: NAME begin -->` and `end`; a table without a record
reads "Not measured.". With `--check` nothing is written; exit code 1 if a document differs from the records.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import table_layouts
from gpu_tables import gpu
from summary_tables import PEERS, SMALL, SUMMARIES
from table_layouts import Result

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "performance.md", *sorted((ROOT / "docs" / "results").glob("*.md")))
RESULTS = ROOT / "benchmarks" / "results"
ABSENT = "Not measured."
TABLES = {**table_layouts.TABLES, "gpu": gpu}


def record(name: str) -> Result | None:
    """The record of that name; None if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def made(name: str) -> str:
    """A table, and below it the machine, rounds and versions that it holds for."""
    result = record(name)
    if result is None:
        return ABSENT
    machine, versions = result["machine"], ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    rounds = f"{result['rounds']} rounds, " if "rounds" in result else ""
    threads = f"{result['threads']} threads; " if "threads" in result else ""
    stated = (
        f"{machine['name']} ({', '.join(machine['instructions'])}), load {machine['load']} when it was recorded; "
        f"{rounds}{threads}{versions}; {result['date']}."
    )
    return f"{TABLES[name](result)}\n\n{stated}"


def summary(name: str) -> str:
    """A summary of several records."""
    results = {each: found for each in (*PEERS, SMALL) if (found := record(each)) is not None}
    return SUMMARIES[name](results) if results else ABSENT


def filled(text: str) -> str:
    """The document with every table as the records give it."""
    for name in (*TABLES, *SUMMARIES):
        begin, end = (f"<!-- benchmarks/tables.py: {name} {side} -->" for side in ("begin", "end"))
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if pattern.search(text):
            content = made(name) if name in TABLES else summary(name)
            text = pattern.sub(lambda _, b=begin, c=content, e=end: f"{b}\n\n{c}\n\n{e}", text)
    return text


def main() -> None:
    """Write the documents, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        if check and filled(text) != text:
            sys.exit(f"{document}: differs from the records; run python benchmarks/tables.py")
        if not check:
            document.write_text(filled(text), encoding="utf-8")


if __name__ == "__main__":
    main()
