"""Turn off the usage reports of ONNX Runtime and OpenVINO: a bundle runs without a word to anyone.

ONNX Runtime (from 1.29, on Linux too) and OpenVINO's Python package report to their makers by default: versions,
devices, names of models, texts of errors. Both read their switch while they are imported, so `perceiver_runtime` calls
`opt_out` before either can be, and the import order of this repository (`pyproject.toml`) keeps it first.
"""

from __future__ import annotations

import os
import sys

ORT_SWITCH = "ORT_DISABLE_TELEMETRY"
OPENVINO_REPORTER = "openvino_telemetry"


def opt_out() -> None:
    """For this process and, for ONNX Runtime, its children. `ORT_DISABLE_TELEMETRY=0` in the environment is kept.

    OpenVINO knows no such variable, only a file in the user's home; without its reporter it takes a stub of its own.
    """
    os.environ.setdefault(ORT_SWITCH, "1")
    if "openvino" not in sys.modules:
        sys.modules[OPENVINO_REPORTER] = None  # type: ignore[assignment]
