"""Turn off the usage reports of ONNX Runtime and OpenVINO, and options that ONNX Runtime takes out of graphs.

ONNX Runtime (from 1.29, on Linux too) and OpenVINO's Python package send reports by default: versions, devices, names
of models, texts of errors. Both read their switch while they are imported, so `perceiver_runtime` calls `opt_out`
before, and the import order of this repository (`pyproject.toml`) keeps it first.
"""

from __future__ import annotations

import os
import sys

ORT_SWITCH = "ORT_DISABLE_TELEMETRY"
GRAPH_OPTIONS = "ORT_LOAD_CONFIG_FROM_MODEL"
"""With this in the environment, a graph sets options of its session, such as writing profiles where a program runs."""
OPENVINO_REPORTER = "openvino_telemetry"


def opt_out() -> None:
    """Opt out for this process and, for ONNX Runtime, its children; `ORT_DISABLE_TELEMETRY=0` is kept.

    OpenVINO has no such variable, only a file in the user's home directory; without its reporter it uses its own stub.
    Graphs set no options, whatever the environment says.
    """
    os.environ.setdefault(ORT_SWITCH, "1")
    os.environ.pop(GRAPH_OPTIONS, None)
    if "openvino" not in sys.modules:
        sys.modules[OPENVINO_REPORTER] = None  # type: ignore[assignment]
