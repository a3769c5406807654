"""Turn off the usage reports of ONNX Runtime and OpenVINO.

ONNX Runtime (from 1.29, on Linux too) and OpenVINO's Python package send reports by default: versions, devices, names
of models, texts of errors. Both read their switch while they are imported, so `perceiver_runtime` calls `opt_out`
before, and the import order of this repository (`pyproject.toml`) keeps it first.
"""

from __future__ import annotations

import os
import sys

ORT_SWITCH = "ORT_DISABLE_TELEMETRY"
OPENVINO_REPORTER = "openvino_telemetry"


def opt_out() -> None:
    """Opt out for this process and, for ONNX Runtime, its children; `ORT_DISABLE_TELEMETRY=0` is kept.

    OpenVINO has no such variable, only a file in the user's home directory; without its reporter it uses its own stub.
    """
    os.environ.setdefault(ORT_SWITCH, "1")
    if "openvino" not in sys.modules:
        sys.modules[OPENVINO_REPORTER] = None  # type: ignore[assignment]
