"""Run a command of `perceiver-run` in a process with limits, for bundles from strangers.

The process can't harm the machine by memory, time, open files or crashes, and has no network where the kernel lets a
user take it away. It reads and writes files as the user does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from perceiver_runtime.errors import SandboxError

CHILD = Path(__file__).with_name("sandboxed.py")
ENDED = {
    signal.SIGXCPU: "it used more processor time than allowed (--sandbox-time allows more)",
    signal.SIGKILL: "it was killed, by hand or by the system for want of memory",
}
CRASHED = "it crashed with {name}: the bundle broke a library, or asked for more memory than --sandbox-memory allows"


@dataclass(frozen=True)
class Limits:
    """Limits of a sandboxed process.

    Attributes:
        memory: Bytes of address space, with all that is mapped: several times what a run uses.
        seconds: Time until it is killed; in processor time, so much of each usable core.
        files: Open files.
    """

    memory: int = 8 << 30
    seconds: float = 300
    files: int = 1024


def run_sandboxed(arguments: Sequence[str], limits: Limits | None = None) -> int:
    """Run `perceiver-run` with these arguments in a process with limits.

    Args:
        arguments: Arguments of `perceiver-run`, without `--sandbox`.
        limits: Limits; None: the defaults.

    Returns:
        Its exit code. Its output goes to this process's stdout and stderr.

    Raises:
        SandboxError: It crashed, or was killed for a limit.
    """
    allowed = limits or Limits()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    command = [sys.executable, str(CHILD), json.dumps({**asdict(allowed), "cores": cores}), *arguments]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(allowed.seconds)
    except subprocess.TimeoutExpired as error:
        raise SandboxError(
            f"sandbox: it took longer than {allowed.seconds:g} s (--sandbox-time allows more)"
        ) from error
    finally:
        with contextlib.suppress(ProcessLookupError):  # what it has started ends with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if code < 0:
        ended = signal.Signals(-code)
        raise SandboxError(f"sandbox: {ENDED.get(ended, CRASHED).format(name=ended.name)}")
    return code
