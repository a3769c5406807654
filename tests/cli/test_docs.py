"""What the pages show works: their Python snippets run in order, and the commands and options they name exist."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from perceiver_deploy.cli import main as program
from perceiver_runtime.cli import main as device

pytestmark = pytest.mark.xdist_group("cli")
ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
SNIPPETS = {
    page: "\n".join(blocks)
    for page, text in PAGES.items()
    if (blocks := re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
}
NOT_RUN = {
    "hybrid": "exports a model for most of a minute; tests/hybrid makes the same calls on a small one",
    "jetson": "needs a Jetson",
}
FOREIGN = {"--system-site-packages", "--inplace"}
"""Options of programs that are not ours: venv, rsync."""


def test_the_pages_have_snippets():
    assert {"README", "models", *NOT_RUN} <= set(SNIPPETS)


@pytest.mark.parametrize("page", sorted(set(SNIPPETS) - set(NOT_RUN)))
def test_snippets_run(page, bundles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(bundles["fp32"], target_is_directory=True)
    exec(compile(SNIPPETS[page], page, "exec", dont_inherit=True), {"__name__": "__main__"})


@pytest.mark.parametrize("page", sorted(SNIPPETS))
def test_snippets_use_no_undefined_names(page):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
    done = subprocess.run(command, input=SNIPPETS[page], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def _export_options() -> dict[str, set[str]]:
    context = click.Context(program.group)
    commands = {name: program.group.get_command(context, name) for name in program.COMMANDS}
    return {name: {o for p in command.params for o in p.opts} for name, command in commands.items()}


def _run_options() -> dict[str, set[str]]:
    (choices,) = (a.choices for a in device._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {name: set(parser._option_string_actions) for name, parser in choices.items()}


OPTIONS = {"perceiver-export": _export_options(), "perceiver-run": _run_options()}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def _code(text: str) -> Iterator[str]:
    """What stands between backticks, and the lines of console blocks."""
    for block in re.findall(r"```(?:console|bash|sh)?\n(.*?)```", text, flags=re.DOTALL):
        yield from (line.split(" # ")[0] for line in block.splitlines() if "perceiver-" in line and "  " not in line)
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def _commands(code: str) -> tuple[list[str], list[set[str]]]:
    r"""The commands that a piece of code names (`check\|build` is two), and the options of each that there is.

    A command that both programs have, and that stands alone, may have the options of either.
    """
    words = code.removeprefix("$ ").split()
    programs = [OPTIONS[words[0]]] if words[0] in OPTIONS else list(OPTIONS.values())
    names = words[1].split("\\|") if words[0] in OPTIONS and len(words) > 1 else words[:1]
    found = [[commands[name] for commands in programs if name in commands] for name in names]
    return names, [set().union(*each) for each in found if each]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_commands_and_options_exist(page):
    scripts = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("benchmarks", "perceiver_deploy/train")
        for path in (ROOT / folder).rglob("*.py")
    )
    known = FOREIGN | {option for commands in OPTIONS.values() for own in commands.values() for option in own}
    for code in _code(PAGES[page]):
        options = set(OPTION.findall(code))
        assert not {option for option in options - known if f'"{option}"' not in scripts}, code
        names, own = _commands(code)
        if code.removeprefix("$ ").startswith("perceiver-") and len(code.split()) > 1:
            assert len(own) == len(names), code
        assert all(options <= each for each in own), code
