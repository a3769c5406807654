"""Install the bindings whose API our code is held against, each version into a directory of its own, with pip.

python tests/engines/contract/install.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
BINDINGS = ROOT / ".cache" / "tensorrt-bindings"
VERSIONS = {
    "10.3.0": "tensorrt_cu12_bindings==10.3.0",
    "10.13.3.9": "tensorrt_cu12_bindings==10.13.3.9",
    "10.16.1.11": "tensorrt_cu12_bindings==10.16.1.11",
    "11.4.0.106": "tensorrt_cu13_bindings==11.4.0.106",
}


def main() -> None:
    """Install what is not there yet."""
    for version, requirement in VERSIONS.items():
        target = BINDINGS / version
        if not (target / "tensorrt_bindings" / "tensorrt.so").exists():
            options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(target)]
            subprocess.run([sys.executable, "-m", "pip", "install", *options, requirement], check=True)


if __name__ == "__main__":
    main()
