"""How `perceiver-export` ends where nothing is wrong with the model: pipes, terminals, interruptions, full disks."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from typing import Any

import click
import pytest

from perceiver_deploy.cli import main as program


def _shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    run = f"{sys.executable} -m perceiver_deploy.cli.main"
    line = ["bash", "-o", "pipefail", "-c", command.replace("perceiver-export", run)]
    return subprocess.run(line, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("perceiver-export --help | true", 141, ""),
        ("perceiver-export --help > /dev/full", 4, "No space left on device"),
        ("perceiver-export --help >&-", 0, ""),
        ("perceiver-export exprôt", 2, "expr\\xf4t"),
        ("perceiver-export exprot --json", 2, "did you mean export?"),
    ],
)
def test_streams(command, code, said):
    done = _shell(command, LC_ALL="C", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    if "--json" in command:
        error = json.loads(done.stdout)["error"]
        assert (error["type"], error["exit_code"]) == ("UsageError", 2)
        assert "exprot" in error["message"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.BadParameter("no"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), 4),
        (MemoryError(), 4),
        (ValueError("ours"), 70),
    ],
)
def test_what_a_command_raises(error: BaseException, code: int, monkeypatch: Any, capsys: Any) -> None:
    @click.command("doctor")
    @click.option("--json", is_flag=True)
    def command(json: bool) -> None:
        raise error

    monkeypatch.setattr(program.LazyGroup, "get_command", lambda self, ctx, name: command)
    with pytest.raises(SystemExit) as end:
        program.main(["doctor", "--json"])
    assert end.value.code == code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["exit_code"] == code
    assert "error: " in captured.err
