"""`export --max-batch` and `--range`: seen in a dry run, with defaults by target, and refused where they contradict."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perceiver_deploy.cli.main import main

LANGUAGE = "language-identifier"


def plan(capsys: pytest.CaptureFixture[str], *arguments: str, source: str = LANGUAGE) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(["export", source, "-o", "nowhere", "--dry-run", "--json", *arguments])
    printed = capsys.readouterr()
    return json.loads(printed.out) if ended.value.code == 0 else (ended.value.code, " ".join(printed.err.split()))


def sizes(low: int, typical: int, high: int) -> dict[str, int]:
    return {"min": low, "opt": typical, "max": high}


@pytest.mark.parametrize(
    ("arguments", "batch", "length"),
    [
        ((), (1, 1, 64), (1, 96, 96)),
        (("--target", "cuda"), (1, 1, 64), (1, 96, 96)),
        (("--target", "rtx"), (1, 1, 8), (1, 96, 96)),
        (("--target", "jetson-orin"), (1, 1, 8), (1, 96, 96)),
        (("--target", "rtx", "--max-batch", "100"), (1, 1, 100), (1, 96, 96)),
        (("--target", "rtx", "--range", "batch=2:4:16"), (2, 4, 16), (1, 96, 96)),
        (("--max-batch", "1", "--range", "length=1:20:40"), (1, 1, 1), (1, 20, 40)),
    ],
)
def test_a_dry_run_shows_the_ranges(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], batch: tuple[int, ...], length: tuple[int, ...]
) -> None:
    assert plan(capsys, *arguments)["ranges"] == {"batch": sizes(*batch), "length": sizes(*length)}


def test_the_table_shows_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", LANGUAGE, "-o", "nowhere", "--dry-run", "--max-batch", "5"])
    assert "batch 1:1:5, length 1:96:96" in " ".join(capsys.readouterr().out.split())


def test_memory_is_that_of_the_chosen_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    def megabytes(*arguments: str) -> int:
        memory: str = plan(capsys, *arguments, source="optical-flow-perceiver")["memory"]
        return int(memory.split(" MB")[0].replace(",", ""))

    assert megabytes("--range", "rows=1:2:2") < megabytes() < megabytes("--range", "batch=1:4:4")


@pytest.mark.parametrize(
    ("arguments", "source", "says"),
    [
        (("--range", "batch=1:2"), LANGUAGE, "expected NAME=MIN:OPT:MAX"),
        (("--range", "width=1:2:3"), LANGUAGE, "expected one of batch (1:1:64), length (1:96:96)"),
        (("--range", "length=1:96:97"), LANGUAGE, "expected sizes within 1 to 96"),
        (("--max-batch", "4", "--range", "batch=1:1:8"), LANGUAGE, "leave one out"),
        (("--max-batch", "0"), LANGUAGE, "--max-batch"),
        (("--range", "rows=1:2:4", "--max-memory", "1GB"), "optical-flow-perceiver", "leave one out"),
    ],
)
def test_contradictions_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], source: str, says: str
) -> None:
    code, message = plan(capsys, *arguments, source=source)
    assert code == 2
    assert says in message
