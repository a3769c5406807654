"""Why ONNX Runtime refused a graph: the graph is invalid, or this release of ONNX Runtime is too old for it."""

from __future__ import annotations

import re

from perceiver_runtime.errors import BundleError, PerceiverError, UnavailableError

TOO_OLD = {
    "IR version": re.compile(r"Unsupported model IR version: (?P<got>\d+), max supported IR version: (?P<reads>\d+)"),
    "operator set": re.compile(r"Opset (?P<got>\d+) is under development.* is till opset (?P<reads>\d+)", re.DOTALL),
}
SINCE = {
    ("IR version", 9): "1.15",
    ("IR version", 10): "1.18",
    ("operator set", 20): "1.17",
    ("operator set", 21): "1.18",
}
"""First releases of ONNX Runtime that read what bundles have."""
NO_KERNEL = re.compile(r"Could not find an implementation for (\S+) ")


def refusal(path: object, version: str, error: Exception) -> PerceiverError:
    """The error for a graph that ONNX Runtime can't load: UnavailableError if another release could load it."""
    for what, pattern in TOO_OLD.items():
        if (match := pattern.search(str(error))) is not None:
            since = SINCE.get((what, int(match["got"])))
            remedy = f"install onnxruntime>={since}" if since else "install a newer onnxruntime"
            return UnavailableError(
                f"{path}: expected an onnxruntime that reads {what} {match['got']}, got onnxruntime {version}, which "
                f"reads up to {match['reads']}: {remedy}"
            )
    if (match := NO_KERNEL.search(str(error))) is not None:
        return UnavailableError(
            f"{path}: onnxruntime {version} has no kernel here for {match[1]}: open the bundle on the backend of its "
            "target, or install a newer onnxruntime"
        )
    return BundleError(f"{path}: onnxruntime {version} can't load it: {error}")
