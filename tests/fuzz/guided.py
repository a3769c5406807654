"""Let coverage guide the damage: Atheris (libFuzzer) searches for input that takes new paths through the readers.

    pip install atheris
    python tests/fuzz/guided.py TARGET --seconds 60 [--json FILE]

Readers of bytes get bytes, from the whole files on. Generators of the others draw their choices from the bytes. Names
of targets are those of `readers.py`. The exit code is 1 if an exception is no PerceiverError.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))
PACKAGES = ("perceiver_runtime", "perceiver_exporters", "perceiver_deploy", "json", "zipfile", "csv", "wave")
MAX_BYTES, INPUT_S = 1 << 16, 10


class Drawn(random.Random):
    """A generator that draws from given bytes, and zeros after their end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._bits = int.from_bytes(data, "little")

    def getrandbits(self, k: int) -> int:
        drawn = self._bits & (1 << k) - 1
        self._bits >>= k
        return drawn

    def random(self) -> float:
        return self.getrandbits(16) / (1 << 16)


def search(name: str, seconds: int, found: Path) -> None:
    """Run libFuzzer, which ends the process; counts go to a file."""
    import atheris

    with atheris.instrument_imports(include=list(PACKAGES)):
        from fuzz.targets import TARGETS
        from fuzz.targets.reading import OfBytes, OfJson
        from mutations import mutated

        from perceiver_runtime.errors import PerceiverError

        folder = Path(tempfile.mkdtemp(dir=found.parent))
        once = TARGETS[name][0](folder)
    corpus = found.parent / "corpus"
    corpus.mkdir()
    for number, whole in enumerate(once.wholes if isinstance(once, OfBytes) else (b"", bytes(range(256)))):
        (corpus / str(number)).write_bytes(whole)
    warnings.simplefilter("ignore")
    counts: dict[str, Any] = {"inputs": 0, "typed": 0, "untyped": 0, "sites": {}}

    def read(data: bytes) -> None:
        if isinstance(once, OfBytes):
            once.read(data)
        elif isinstance(once, OfJson):
            chance, record = Drawn(data), once.whole
            for _ in range(1 + chance.getrandbits(2)):
                record = mutated(record, chance)
            once.read(record)
        else:
            once(Drawn(data))

    def one(data: bytes) -> None:
        counts["inputs"] += 1
        try:
            read(data)
        except PerceiverError:
            counts["typed"] += 1
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} {Path(place.filename).name}:{place.lineno}"
            counts["untyped"] += 1
            counts["sites"].setdefault(where, data[:200].hex())
        if counts["inputs"] % 100 == 0:
            found.write_text(json.dumps(counts))

    limits = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-timeout={INPUT_S}", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()


def searched(name: str, seconds: int) -> dict[str, Any]:
    """Search in a process of its own; `covered` are the places that libFuzzer counted, `crashes` its death."""
    with tempfile.TemporaryDirectory() as place:
        found = Path(place) / "found.json"
        command = [sys.executable, __file__, name, "--seconds", str(seconds), "--into", str(found)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        counts: dict[str, Any] = json.loads(found.read_text()) if found.exists() else {"inputs": 0, "sites": {}}
    statuses = [line.split() for line in done.stderr.splitlines() if line.startswith("#") and " cov: " in line]
    covered = [int(words[words.index("cov:") + 1]) for words in statuses]
    first, last = (covered[0], covered[-1]) if covered else (0, 0)
    crashes = int(done.returncode != 0)
    if crashes:
        print(done.stderr[-2000:], file=sys.stderr)
    return {"target": name, **counts, "crashes": crashes, "covered_first": first, "covered": last}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.into is not None:
        search(given.targets[0], given.seconds, given.into)
    columns = ("inputs", "typed", "untyped", "crashes", "covered_first", "covered")
    print(f"| target | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    rows = []
    for name in given.targets:
        rows.append(row := searched(name, given.seconds))
        print(f"| {name} | {' | '.join(str(row.get(column, 0)) for column in columns)} |", flush=True)
        for site, data in row["sites"].items():
            print(f"  {site}: {data}", file=sys.stderr, flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(row.get("untyped", 0) or row["crashes"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
