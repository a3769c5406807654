"""The example of docs/parity.md: keys and values of one layer of the shipped model are swapped.

PYTHONPATH=tests python benchmarks/worked_fault.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from click.testing import CliRunner
from faults.seeded import BLOCK, seed, swap

from perceiver_deploy import export
from perceiver_deploy.cli.main import group


def show(*arguments: str) -> None:
    result = CliRunner().invoke(group, arguments, standalone_mode=False)
    print(f"$ perceiver-export {' '.join(arguments)}")
    print(result.stdout + result.stderr, end="")
    print(f"exit code {result.return_value}\n")


def main() -> None:
    os.environ["COLUMNS"] = "110"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        export("fashion-perceiver", "healthy", precision="int8")
        seed(Path("healthy"), Path("broken"), BLOCK, swap("1.attention.key", "1.attention.value"))
        show("verify", "broken")
        show("bisect", "broken", "--quiet")
        show("replay", f"perceiver-failures/broken/nodes/{BLOCK}")
        show("bisect", "healthy", "--quiet")


if __name__ == "__main__":
    main()
