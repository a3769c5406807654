"""The commands of docs/jetson.md and docs/tensorrt.md: the workstation's run as they stand, all others are parsed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from perceiver_deploy.cli.main import group, main
from perceiver_runtime.cli.main import _parser as device_parser
from perceiver_runtime.cli.main import main as device

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
OURS = {"perceiver-export": "export", "perceiver-run": "run", "build.sh": "build"}


def commands(page: str) -> list[list[str]]:
    """Our commands in a page's blocks, in order, as words."""
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    lines = [line for language, block in blocks if language == "bash" for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and Path(line[0]).name in OURS]


ALL = [(page, words) for page in ("jetson.md", "tensorrt.md") for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), ALL, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_commands_are_ones_that_we_have(page: str, words: list[str]) -> None:
    program, arguments = Path(words[0]).name, words[1:]
    if program == "perceiver-export":
        command = group.get_command(None, arguments[0])  # type: ignore[arg-type]
        assert command is not None
        command.make_context(arguments[0], arguments[1:])
    else:  # build.sh calls `perceiver-run build` on its own folder
        device_parser().parse_args(arguments if program == "perceiver-run" else ["build", "kit", *arguments])


def test_pages_have_commands_for_both_machines() -> None:
    assert {Path(words[0]).name for words in commands("jetson.md")} == set(OURS)


def test_the_workstations_commands_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report that they import is made here, of the processor."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for words in commands("jetson.md"):
        if words[0] == "perceiver-export":
            if words[1:3] == ["boards", "import"]:
                quick = ("-o", words[3], "--iterations", "3", "--warmup", "0", "--quiet")
                assert device(["selftest", "bundle-jetson-orin-kit", *quick]) == 0
            with pytest.raises(SystemExit) as ended:
                main(words[1:])
            assert ended.value.code in (0, None), words
    kit = tmp_path / "bundle-jetson-orin-kit"
    assert {"manifest.json", "kit.json", "build.sh", "onnx", "golden"} <= {path.name for path in kit.iterdir()}
