"""Install the lean wheel on an emulated arm64 Debian, verify bundles there, and write the table of docs/jetson.md.

    apt-get install qemu-user-static debootstrap
    python benchmarks/arm64.py --directory DIR

Needs Linux, root (debootstrap makes devices), Debian's mirror and a package index. The root file system and the wheels
are kept in DIR. Only the processor is emulated: the wheels are those that a board installs. Speed is not
measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from perceiver_deploy.api.export import export

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "jetson.md"
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
PACKAGES = "python3,python3-pip,libstdc++6"
PYTHON = "3.11"
CPU = "cortex-a76"
"""The emulated core: of the generation of the Cortex-A78AE in Orin, with FP16 and dot products."""

ONNXRUNTIMES = ("1.20.1", "1.23.2")
NUMPY = "2.2.6"
MODELS = ("fashion-perceiver", "language-identifier", "emoji-namer")
PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class Verified:
    """What `perceiver-run verify` said on arm64: verdict and the pipeline's worst relative L2 error and tolerance."""

    model: str
    precision: str
    onnxruntime: str
    passed: bool
    rel_l2: float
    tolerance: float


@dataclass(frozen=True)
class Emulated:
    """An arm64 Debian below `root`, whose programs qemu runs; `site` holds what pip installed for them."""

    root: Path
    site: Path

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its Python; the packages of `site` are importable."""
        command = ["qemu-aarch64-static", "-cpu", CPU, "-L", str(self.root), f"{self.root}/usr/bin/python{PYTHON}"]
        environment = {**os.environ, "PYTHONPATH": str(self.site)}
        return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)


def debian(directory: Path) -> Path:
    """A Debian root of arm64, unpacked and not configured: nothing of it has to run for that."""
    root = directory / "root"
    if not (root / f"usr/bin/python{PYTHON}").exists():
        options = ("--arch=arm64", "--foreign", "--variant=minbase", f"--include={PACKAGES}")
        _run("debootstrap", *options, SUITE, str(root), MIRROR)
        for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
            _run("dpkg", "-x", str(package), str(root))
    return root


def wheels(directory: Path) -> Path:
    """The lean wheel of this checkout, and arm64's NumPy and ONNX Runtime."""
    place = directory / "wheels"
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place.resolve()), cwd=ROOT / "runtime")
    platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("2014", "_2_27", "_2_28")]
    for requirement in (f"numpy=={NUMPY}", *(f"onnxruntime=={version}" for version in ONNXRUNTIMES)):
        options = ("--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}", *platforms)
        _run(sys.executable, "-m", "pip", "download", *options, "--dest", str(place), requirement)
    return place


def install(root: Path, place: Path, onnxruntime: str) -> Emulated:
    """Install the three wheels with arm64's own pip."""
    emulated = Emulated(root, place.parent / f"site-{onnxruntime}")
    shutil.rmtree(emulated.site, ignore_errors=True)
    options = ("--quiet", "--no-index", "--no-deps", "--no-compile", f"--find-links={place}")
    names = ("perceiver-runtime", f"numpy=={NUMPY}", f"onnxruntime=={onnxruntime}")
    done = emulated.python("-m", "pip", "install", *options, f"--target={emulated.site}", *names)
    if done.returncode:
        raise SystemExit(done.stderr)
    return emulated


def verify(emulated: Emulated, bundles: dict[tuple[str, str], Path], onnxruntime: str) -> Iterator[Verified]:
    """Verify each bundle there."""
    for (model, precision), path in bundles.items():
        done = emulated.python("-m", "perceiver_runtime", "verify", "--json", str(path))
        if done.returncode not in (0, 1):
            raise SystemExit(f"{model} {precision} on arm64: {done.stderr}")
        reports = json.loads(done.stdout)
        chained = [report for report in reports if report["mode"] == "chained"]
        worst = max(chained, key=lambda report: report["rel_l2"] / report["tolerance"])
        passed = all(report["passed"] for report in reports)
        yield Verified(model, precision, onnxruntime, passed, worst["rel_l2"], worst["tolerance"])


def table(rows: list[Verified]) -> str:
    """Markdown."""
    lines = ["| Model | Precision | ONNX Runtime | Worst relative L2 (tolerance) | Verdict |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "passed" if row.passed else "FAILED"
        error = f"{row.rel_l2:.1e} ({row.tolerance:.1e})"
        lines.append(f"| {row.model} | {row.precision} | {row.onnxruntime} | {error} | {verdict} |")
    return "\n".join(lines)


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Set up, verify, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, required=True, help="for the root file system and the wheels")
    directory: Path = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    root, place = debian(directory), wheels(directory)
    bundles = {(m, p): directory / "bundles" / f"{m}-{p}" for m in MODELS for p in PRECISIONS}
    for (model, precision), path in bundles.items():
        export(model, path, precision=precision, overwrite=True)
    rows: list[Verified] = []
    for version in ONNXRUNTIMES:
        rows += verify(install(root, place, version), bundles, version)
    machine = Emulated(root, directory).python(
        "-c", "import platform; print(platform.machine(), platform.python_version())"
    )
    before, rest = PAGE.read_text(encoding="utf-8").split("<!-- arm64 -->\n")
    _, after = rest.split("<!-- end of arm64 -->")
    made = f"{time.strftime('%Y-%m-%d')}, {machine.stdout.strip()} emulated by qemu on {platform.machine()}"
    PAGE.write_text(f"{before}<!-- arm64 -->\n{made}:\n\n{table(rows)}\n<!-- end of arm64 -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
