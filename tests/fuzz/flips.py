"""Flip one bit of a bundle at a time, and count the flips that loading it does not refuse.

    python tests/fuzz/flips.py BUNDLE --flips 2000 [--seed 1] [--only manifest.json]

Places are drawn over the bytes of all files, or of one. The bundle is copied first. The exit code is 1 unless each flip
is refused by a BundleError.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from perceiver_runtime import BundleError, load_bundle


def flips(bundle: Path, count: int, seed: int, only: str | None) -> Counter[str]:
    """Answers of `load_bundle`, and the name of each file with an unseen flip."""
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file() and only in (None, path.name)]
    sizes = [path.stat().st_size for path in files]
    chance, counts = random.Random(seed), Counter[str]()
    for _ in range(count):
        (path,) = chance.choices(files, sizes)
        place, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        _flip(path, place, bit)
        try:
            load_bundle(bundle).close()
            counts[f"unseen: {path.name}"] += 1
        except BundleError:
            counts["refused"] += 1
        except Exception as error:
            counts[f"untyped: {type(error).__name__}"] += 1
        finally:
            _flip(path, place, bit)
    load_bundle(bundle).close()
    return counts


def _flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="name of a file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(shutil.copytree(given.bundle, Path(folder) / "bundle"))
        counts = flips(bundle, given.flips, given.seed, given.only)
    print(dict(counts))
    return int(counts["refused"] != given.flips)


if __name__ == "__main__":
    sys.exit(main())
