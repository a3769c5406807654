"""How the programs end: every error has its documented exit code, on every kind of terminal."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiver_runtime.cli.exits import run_program
from perceiver_runtime.cli.main import main
from perceiver_runtime.cli.options import size
from perceiver_runtime.errors import BundleError, CheckError, UnavailableError, typed
from perceiver_runtime.escapes import printable

ENDS: dict[str, tuple[BaseException, int]] = {
    "parity": (CheckError("worse"), 1),
    "path": (FileNotFoundError(errno.ENOENT, "No such file", "/a"), 2),
    "name too long": (OSError(errno.ENAMETOOLONG, "File name too long", "/a"), 2),
    "links in a circle": (OSError(errno.ELOOP, "Too many levels of symbolic links", "/a"), 2),
    "bundle": (BundleError("damaged"), 3),
    "permission": (PermissionError(errno.EACCES, "Permission denied", "/a"), 4),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "/a"), 4),
    "disk full": (OSError(errno.ENOSPC, "No space left on device", "/a"), 4),
    "memory": (MemoryError("Unable to allocate 7.45 TiB"), 4),
    "memory of torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 4),
    "disk full in Rust": (RuntimeError("I/O error: No space left on device (os error 28)"), 4),
    "defect": (KeyError("x"), 70),
    "unknown errno": (OSError(errno.EBADF, "Bad file descriptor"), 70),
    "interrupted": (KeyboardInterrupt(), 130),
    "closed pipe": (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141),
}


def _raises(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize("case", ENDS)
def test_every_error_has_its_exit_code(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, code = ENDS[case]
    assert run_program("program", "program", _raises(error), as_json=True) == code
    captured = capsys.readouterr()
    if code == 141:
        assert captured.out == captured.err == ""
        return
    told = json.loads(captured.out)["error"]
    assert told["exit_code"] == code
    assert set(told) == {"type", "message", "exit_code"}
    assert f"program: {told['message']}" in captured.err
    assert ("Traceback" in captured.err) == (code == 70)
    if isinstance(error, OSError) and error.filename:
        assert "/a: " in told["message"]


def test_without_json_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program("program", "program", _raises(BundleError("damaged")), as_json=False) == 3
    assert capsys.readouterr().out == ""


def test_an_error_that_has_its_code_already_stays_what_it_is() -> None:
    error = UnavailableError("no GPU")
    assert typed(error) is error
    assert typed(ValueError("x")) is None


@pytest.mark.parametrize("stream", [None, io.StringIO()], ids=["none", "in memory"])
def test_a_program_inside_another(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    """Which may have closed its streams or put others there, and may log warnings itself."""
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logging, "lastResort", None)
    assert run_program("program", "program", lambda: print("answer") or 0, as_json=False) == 0
    assert run_program("program", "program", _raises(BundleError("damaged")), as_json=False) == 3
    if stream is not None:
        assert stream.getvalue() == "answer\nprogram: damaged\n"


def test_a_stream_in_memory_that_is_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert run_program("program", "program", lambda: 0, as_json=False) == 4
    assert "No space left on device" in capsys.readouterr().err


def _shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    run = f"{sys.executable} -m perceiver_runtime"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("perceiver-run", run)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("perceiver-run inspect {bundle} | true", 141, ""),
        ("perceiver-run inspect {bundle} > /dev/full", 4, "No space left on device"),
        ("perceiver-run inspect {bundle} >&-", 0, ""),
        ("perceiver-run inspect {bundle}/none 2>&-", 3, ""),
    ],
)
def test_outputs_that_take_nothing(bundle: Path, command: str, code: int, said: str) -> None:
    done = _shell(command.format(bundle=bundle))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)


def test_a_terminal_without_the_characters(copy: Path) -> None:
    place = copy.rename(copy.with_name("出力"))
    done = _shell(f"perceiver-run verify '{place}'", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    missing = _shell(f"perceiver-run inspect '{place}x'", LC_ALL="C", PYTHONIOENCODING="ascii:strict")
    assert missing.returncode == 3
    assert "\\u51fa" in missing.stderr


def test_names_can_not_control_the_terminal() -> None:
    assert printable("a\x1b[31mred\x07\r\x9b1m\u202ec") == "a\\x1b[31mred\\x07\\r\\x9b1m\\u202ec"
    assert printable("naïve 猫 👩‍🚀\n") == "naïve 猫 👩‍🚀\n"


WRONG = {
    "--iterations": ["0", "-1", "1e3", "nan", "9" * 5000],
    "--warmup": ["-1", "x"],
    "--batch": ["0", "1.5"],
    "--threads": ["0", "-2", "inf"],
}


@pytest.mark.parametrize(("option", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_numbers_are_refused_by_the_name_of_their_option(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "bundle", option, value, "--json"]) == 2
    captured = capsys.readouterr()
    assert f"argument {option}: expected an integer" in captured.err
    assert json.loads(captured.out)["error"]["type"] == "UsageError"


def test_more_threads_than_make_sense(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(bundle), "--threads", "100000"]) == 2
    assert "threads (--threads): expected 1 to " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["benhc", "b"], "bench"),
        (["bench", "b", "--itrations", "5"], "--iterations"),
        (["verify", "b", "--backend", "openvin"], "openvino"),
        (["build", "b", "--module", "tensort"], "tensorrt"),
    ],
)
def test_near_misses_are_suggested(arguments: list[str], suggestion: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert f"did you mean {suggestion}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size_"), [("1500MB", 1_500_000_000), ("1.5GB", 1_500_000_000), ("256MiB", 256 << 20), ("1kb", 1000)]
)
def test_sizes_have_units(text: str, size_: int) -> None:
    assert size(text) == size_


@pytest.mark.parametrize("text", ["256", "MB", "nanMB", "-1GB", "0KB", "1TB", "infGB", "1e30GB"])
def test_what_is_no_size_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "b", f"--workspace={text}"]) == 2
    assert "argument --workspace: expected a size" in capsys.readouterr().err
