"""How a command-line program ends: each exception as its exit code, and with --json as a document on stdout."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import TextIO

from perceiver_runtime.errors import CLOSED_OUTPUT, INTERNAL_ERROR, INTERRUPTED, typed
from perceiver_runtime.escapes import printable

CHOICES = logging.getLogger("perceiver_runtime.execution.choice")
_NOWHERE = logging.NullHandler()
"""Swallows warnings on the choice of a backend: programs print what a session runs on."""


def run_program(name: str, prefix: str, command: Callable[[], int], *, as_json: bool) -> int:
    """Run a command and answer its exit code (see `perceiver_runtime.errors`), whatever it raises.

    Errors go to stderr behind `prefix`; with `as_json` stdout gets `{"error": {"type", "message", "exit_code"}}` too.
    Characters that a terminal does not have are written as escapes. SystemExit passes.
    """
    _prepare_streams()
    _escape_warnings()
    CHOICES.addHandler(_NOWHERE)
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        code = CLOSED_OUTPUT
    except KeyboardInterrupt:
        code = _report(prefix, "Interrupted", "interrupted", INTERRUPTED, as_json)
    except Exception as error:
        if (known := typed(error)) is not None:
            code = _report(prefix, type(known).__name__, str(known), known.exit_code, as_json)
        else:
            with contextlib.suppress(OSError):
                traceback.print_exc()
            message = f"this is a defect of {name}; please report it with the lines above"
            code = _report(prefix, type(error).__name__, message, INTERNAL_ERROR, as_json)
    finally:
        _close_streams()
    return code


def _report(prefix: str, kind: str, message: str, code: int, as_json: bool) -> int:
    with contextlib.suppress(OSError):  # nobody reads it
        print(f"{prefix}: {printable(message)}", file=sys.stderr)
        if as_json:
            print(json.dumps({"error": {"type": kind, "message": message, "exit_code": code}}, indent=2))
    return code


def _prepare_streams() -> None:
    """Nothing that is printed may raise: not for a terminal's encoding, nor for a stream that the caller closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - open until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _escape_warnings() -> None:
    """Warnings of libraries, which go to stderr, may have names of files and of what is in them."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Printable())


def _close_streams() -> None:
    """Drop what a closed pipe or a full disk did not take: Python would try again at its exit, and end with 120."""
    for stream in (sys.stdout, sys.stderr):
        _close(stream)


def _close(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            descriptor = stream.fileno()  # none, where a caller put a stream of its own
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
