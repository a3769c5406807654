"""Perceivers that others published, measured, as a table.

    python benchmarks/wild --packages DIR --install       install the packages (pip, without their dependencies)
    python benchmarks/wild --packages DIR [--only NAME ...] [--rounds 9] [--write docs/wild.md]

Each package has a folder of its own in DIR, because three of them share an import name, and each module is measured in
a process of its own. Results are added to benchmarks/results/wild/modules.json, from which `--write` makes the page.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER.parent)]

from record import RESULTS, described, versions  # noqa: E402

from perceiver_runtime.format.schema import encode  # noqa: E402
from wild.catalogue import CATALOGUE  # noqa: E402
from wild.entry import Entry  # noqa: E402
from wild.page import page  # noqa: E402

RECORD = RESULTS / "wild" / "modules.json"


def install(packages: Path) -> None:
    """Install every package of the catalogue into its folder."""
    wanted: dict[str, set[str]] = {}
    for entry in CATALOGUE:
        if not entry.installed:
            wanted.setdefault(entry.folder, set()).update((entry.package, *entry.requires))
    for folder, names in wanted.items():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages / folder)]
        subprocess.run([*command, *sorted(names)], check=True)


def recorded() -> dict[str, Any]:
    """The results so far."""
    RECORD.parent.mkdir(exist_ok=True)
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {"modules": {}}
    return found


def here(entry: Entry, packages: Path, rounds: int, speed: bool) -> None:
    """Measure an entry in this process, and record it."""
    if not entry.installed:
        sys.path.insert(1, str(packages / entry.folder))
    from wild.measure import Result, measure

    known = recorded()
    found = Result(**known["modules"][entry.slug]) if speed else None
    result = measure(entry, rounds, lambda text: print(f"{entry.name}: {text}", flush=True), found)
    known = recorded()
    known |= {"machine": described(), "versions": versions()}
    folder = str(packages.resolve() / entry.folder)  # messages name files; where they are installed is of no interest
    known["modules"][entry.slug] = encode(replace(result, failed=result.failed.replace(f"{folder}/", "")))
    RECORD.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names in the table, lower case with dashes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--speed", action="store_true", help="only the speed, of modules that are in the results")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--here", metavar="NAME", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        here(next(e for e in CATALOGUE if e.slug == given.here), given.packages, given.rounds, given.speed)
        return
    if given.install:
        install(given.packages)
    for entry in CATALOGUE if not given.install else ():
        if given.only is None or entry.slug in given.only:
            command = [sys.executable, __file__, "--packages", str(given.packages), "--rounds", str(given.rounds)]
            subprocess.run([*command, "--here", entry.slug, *["--speed"] * given.speed], check=False, timeout=900)
    if given.write:
        given.write.write_text(page(json.loads(RECORD.read_text(encoding="utf-8")), CATALOGUE), encoding="utf-8")


if __name__ == "__main__":
    main()
