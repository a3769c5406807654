"""TensorRT's log as data, so that its errors are part of the exceptions that a user sees."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

LOGGER = logging.getLogger("perceiver_runtime.tensorrt")


def build_logger(trt: ModuleType) -> Any:
    """An ILogger that collects warnings and errors (`messages`, `errors`) and passes all on to Python's logging."""
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

        def log(self, severity: Any, msg: str) -> None:
            level = levels[severity]
            if level >= logging.WARNING:
                self.messages.append(msg)
            if level >= logging.ERROR:
                self.errors.append(msg)
            # Errors are raised by us with these texts, so the log itself stays below the default threshold.
            LOGGER.log(min(level, logging.INFO), "%s", msg)

    return CollectingLogger()
