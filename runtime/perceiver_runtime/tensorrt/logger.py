"""TensorRT's log as data, so that its errors are part of the exceptions that a user sees."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

from perceiver_runtime.tensorrt.fusion import layers_in

_LAYER = ", LayerType: "
LOGGER = logging.getLogger("perceiver_runtime.tensorrt")


def build_logger(trt: ModuleType) -> Any:
    """An ILogger that collects warnings and errors (`messages`, `errors`) and passes all on to Python's logging.

    `layers` are name and kernel of each layer of the engines that were built, if the build logs them: all that a
    machine without the GPU can know of them.
    """
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
        severity.VERBOSE: logging.DEBUG,
    }

    class CollectingLogger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.errors: list[str] = []
            self.layers: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            level = levels[severity]
            if level >= logging.WARNING:
                self.messages.append(msg)
            if level >= logging.ERROR:
                self.errors.append(msg)
            if _LAYER in msg:
                self.layers += layers_in(msg)
            # Errors are raised by us with these texts, so the log itself stays below the default threshold.
            LOGGER.log(min(level, logging.INFO), "%s", msg)

    return CollectingLogger()
