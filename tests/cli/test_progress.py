"""Progress: bars on a terminal, few lines elsewhere, nothing with --quiet; the terminal is left as it was."""

from __future__ import annotations

import io
import logging
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from perceiver_deploy.cli.progress import ProgressBars, progress_handler
from perceiver_runtime.cli.progress import ProgressLines, progress_shown
from perceiver_runtime.progress import LOGGER, report, track

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
WORK = """
import sys, time
from perceiver_deploy.cli.progress import progress_handler
from perceiver_runtime.cli.exits import run_program
from perceiver_runtime.cli.progress import progress_shown
from perceiver_runtime.progress import report, track

def command():
    with progress_shown(progress_handler()):
        report("load")
        for _ in track(range(int(sys.argv[1])), "calibrate"):
            time.sleep(0.02)
    return 0

sys.exit(run_program("perceiver-export", "error", command, as_json=False))
"""


def test_lines_at_the_beginning_and_the_end_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown(ProgressLines()):
        report("load [bold]\x1b[31m")
        assert list(track(range(100), "calibrate")) == list(range(100))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "load [bold]\\x1b[31m"
    assert lines[1] == "calibrate: 100"
    assert lines[2].startswith("calibrate: 100 in ")
    assert len(lines) == 3


def test_nothing_is_shown_without_a_handler(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown(None):
        report("load")
        assert sum(track(range(3), "calibrate")) == 3
    assert capsys.readouterr().err == ""


def test_handlers_are_gone_after_an_error() -> None:
    before = (list(LOGGER.handlers), LOGGER.level)
    with pytest.raises(ValueError, match="ours"), progress_shown(ProgressLines()):
        raise ValueError("ours")
    assert (LOGGER.handlers, LOGGER.level) == before


def test_a_terminal_gets_bars_and_others_get_lines() -> None:
    assert type(progress_handler()) is ProgressLines
    screen = io.StringIO()
    bars = ProgressBars(Console(file=screen, force_terminal=True, width=80, highlight=False))
    with progress_shown(bars):
        for item in track(iter(range(4)), "unknown", None):
            assert item < 4
        for _ in track(range(4), "outer"):
            assert list(track(range(2), "inner")) == [0, 1]
            bars.bars.refresh()
    shown = screen.getvalue()
    assert "outer" in shown
    assert "/4" in shown
    assert shown.count(HIDE) == shown.count(SHOW) > 0
    assert isinstance(bars, logging.Handler)


def test_a_loop_that_is_left_takes_its_bar_away() -> None:
    screen = io.StringIO()
    bars = ProgressBars(Console(file=screen, force_terminal=True, width=80, highlight=False))
    with progress_shown(bars):
        for item in track(range(4), "search"):
            if item == 2:
                break
        assert not bars.tasks
        assert screen.getvalue().count(SHOW) == 1
    assert "search: 2 in " in screen.getvalue()


def _on_a_terminal(arguments: list[str], interrupt_at: str = "") -> tuple[int, str]:
    """Run a program whose stderr is a terminal; send Ctrl-C once it shows some text."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it, and so do children
    done = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    signal.signal(signal.SIGINT, before)
    os.close(theirs)
    shown, sent, end = "", False, time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([ours], [], [], 0.05)[0]:
            try:
                shown += os.read(ours, 65536).decode()
            except OSError:
                break
        if interrupt_at and not sent and interrupt_at in shown:
            done.send_signal(signal.SIGINT)
            sent = True
    os.close(ours)
    return done.wait(10), shown


def test_a_bar_with_the_time_left() -> None:
    code, shown = _on_a_terminal([sys.executable, "-c", WORK, "30"])
    assert code == 0, shown
    assert "load" in shown
    assert "/30" in shown
    assert ":" in shown.split("/30")[1]
    assert shown.rindex(SHOW) > shown.rindex(HIDE)


def test_an_interruption_leaves_the_terminal_clean() -> None:
    code, shown = _on_a_terminal([sys.executable, "-c", WORK, "5000"], interrupt_at="/5000")
    assert code == 130, shown
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert shown.rstrip().endswith("error: interrupted")


def test_help_does_not_wait_for_torch() -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'transformers'}"
    code = (
        "import sys; from perceiver_deploy.cli.main import group\n"
        "group(sys.argv[1:], standalone_mode=False)\n"
        f"print({heavy} & set(sys.modules))"
    )
    for arguments in (["--help"], ["export", "--help"], ["verify", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.stdout.endswith("set()\n"), done.stdout + done.stderr


def test_quiet_leaves_the_error_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perceiver_runtime", "verify", str(tmp_path), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
