"""What the pages show works: their Python snippets run in order, and the commands and options they name exist."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from cli.interface import export_commands

import perceiver_deploy
import perceiver_runtime
from perceiver_deploy.cli import main as program
from perceiver_runtime.cli import main as device

pytestmark = pytest.mark.xdist_group("cli")
ROOT = Path(__file__).parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "runtime/README.md", "benchmarks/README.md")
FILES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
SNIPPET = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n+)?^ *```(?P<language>python|bash)\n(?P<code>.*?)^ *```$",
    flags=re.DOTALL | re.MULTILINE,
)
"""A block of code; what can't run in a test says so in a comment before it."""

KNOWN = {"--version", "--system-site-packages", "--inplace", "--index-url", "--require-hashes"}
"""Options of both programs themselves, and of others: venv, rsync, pip."""


@dataclass(frozen=True)
class Snippet:
    """A block of code of a page, and why it is not run (empty: it is)."""

    language: str
    code: str
    reason: str


def _snippets(text: str) -> list[Snippet]:
    return [
        Snippet(match["language"], textwrap.dedent(match["code"]), match["reason"] or "")
        for match in SNIPPET.finditer(text)
    ]


SNIPPETS = {page: found for page, text in PAGES.items() if (found := _snippets(text))}


def test_pages_have_snippets():
    assert {"README.md", "docs/hybrid.md", "docs/jetson.md", "docs/security.md"} <= set(SNIPPETS)


@pytest.mark.parametrize("page", [page for page, found in SNIPPETS.items() if not all(s.reason for s in found)])
def test_snippets_run(page, bundles, tmp_path, monkeypatch):
    """In order, in one namespace and one directory, which has a bundle unless the page exports it.

    A block that starts with the name of a file becomes that file.
    """
    monkeypatch.chdir(tmp_path)
    snippets = [snippet for snippet in SNIPPETS[page] if not snippet.reason]
    if not any(re.search(r'export\(.*"bundle"|export .* -o bundle', snippet.code) for snippet in snippets):
        (tmp_path / "bundle").symlink_to(bundles["fp32"], target_is_directory=True)
    names: dict[str, object] = {"__name__": "__main__"}
    for snippet in snippets:
        if file := re.match(r"# (\w+\.py)\n", snippet.code):
            (tmp_path / file[1]).write_text(snippet.code, encoding="utf-8")
        elif snippet.language == "python":
            exec(compile(snippet.code, page, "exec", dont_inherit=True), names)
        else:
            _run_commands(snippet.code)


def _run_commands(code: str) -> None:
    """Run the lines that call our programs; what installs packages or runs make has tests of its own."""
    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        main = {"perceiver-export": program.main, "perceiver-run": device.main}.get(words[0]) if words else None
        if main is None:
            continue
        try:
            exit_code = main(words[1:])
        except SystemExit as ended:
            exit_code = ended.code  # type: ignore[assignment]
        assert not exit_code, line


@pytest.mark.parametrize("page", sorted(SNIPPETS))
def test_snippets_use_no_undefined_names(page):
    code = "\n".join(snippet.code for snippet in SNIPPETS[page] if snippet.language == "python")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def _export_options() -> dict[str, set[str]]:
    """Options by command; a command has those of its own commands too."""
    found: dict[str, set[str]] = {}
    for name, command in export_commands(click.Context(program.group)):
        found.setdefault(name.split()[0], set()).update(o for p in command.params for o in p.opts)
    return found


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
    names = [name for name in names if name not in KNOWN]
    found = [[commands[name] for commands in programs if name in commands] for name in names]
    return names, [set().union(*each) for each in found if each]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_commands_and_options_exist(page):
    scripts = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("benchmarks", "examples/zoo_training", "tools")
        for path in (ROOT / folder).rglob("*.py")
    )
    known = KNOWN | {option for commands in OPTIONS.values() for own in commands.values() for option in own}
    for code in _code(PAGES[page]):
        options = set(OPTION.findall(code))
        assert not {option for option in options - known if f'"{option}"' not in scripts}, code
        names, own = _commands(code)
        if code.removeprefix("$ ").startswith("perceiver-") and len(code.split()) > 1:
            assert len(own) == len(names), code
        assert all(options <= each for each in own), code


@pytest.mark.parametrize("name", OPTIONS)
def test_the_tables_of_commands_are_whole(name):
    section = PAGES["docs/cli.md"].split(f"## {name}\n")[1].split("\n## ")[0].split("| Option |")[0]
    assert set(re.findall(r"^\| `([a-z-]+)", section, flags=re.MULTILINE)) == set(OPTIONS[name])


def test_every_page_of_results_has_a_table():
    pages = {name: page for name, page in PAGES.items() if name.startswith("docs/results/")}
    assert not [name for name, page in pages.items() if "\n| " not in page]


def test_reference_pages_have_every_exported_name():
    for package in (perceiver_deploy, perceiver_runtime):
        page = PAGES[f"docs/api/{package.__name__}.md"]
        absent = [name for name in package.__all__ if not re.search(rf"\b{name}\b", page)]
        assert not absent, package.__name__


def test_benchmarks_are_listed():
    folder = ROOT / "benchmarks"
    programs = [path.parent for path in folder.rglob("__main__.py")]  # a folder that Python runs is one script
    files = (next((p for p in programs if p in path.parents), path) for path in folder.rglob("*.py"))
    scripts = {str(path.relative_to(folder)) for path in files}
    assert not {name for name in scripts if f"`{name}`" not in PAGES["benchmarks/README.md"]}


@pytest.mark.parametrize("name", TOP)
def test_links_outside_of_the_site_lead_somewhere(name):
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", PAGES[name])
    assert not [link for link in links if not (ROOT / name).parent.joinpath(link).exists()]


def test_the_site_builds_without_a_warning(tmp_path):
    """Strict: dead links, dead anchors, pages outside the navigation and unresolved API names are warnings."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "api" / "perceiver_runtime.html").exists()
