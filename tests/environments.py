"""What pyproject.toml declares, and virtual environments that wheels are installed into."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def project(folder: str = ".") -> dict[str, Any]:
    """The table `project` of a folder's pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def call(*command: object, ok: bool = True) -> str:
    """The output of a command that runs outside the repository, whose folders Python would else import from."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tempfile.gettempdir(),
        check=False,
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout


class Environment:
    """A virtual environment that finds third-party packages where the tests do, and none of this project's."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder)
        (self.packages,) = folder.glob("lib/python*/site-packages")
        (self.packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        self.binaries = folder / "bin"

    def pip(self, *arguments: object, ok: bool = True) -> None:
        """Run pip in the environment, without an index: whatever is not there can't be installed."""
        options = ("--no-index", "--no-build-isolation", "--no-compile") if arguments[0] == "install" else ("--yes",)
        call(*PIP, "--python", self.binaries / "python", arguments[0], *options, *arguments[1:], ok=ok)

    def run(self, program: str, *arguments: object, ok: bool = True) -> str:
        """Run an installed program."""
        return call(self.binaries / program, *arguments, ok=ok)

    def installed(self) -> set[str]:
        """Paths of all installed files, relative to site-packages, without pip's and Python's own caches."""
        files = (path for path in self.packages.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(self.packages)) for path in files} - {"dependencies.pth"}
