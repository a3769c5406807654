"""The public interface as text: names, parameters and defaults, and the options of both programs.

    python tests/cli/interface.py

writes it to `interface.txt`. A change of that file is a change of the interface: see docs/stability.md.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import griffe

import perceiver_deploy
import perceiver_runtime
from perceiver_deploy.cli import main as program
from perceiver_runtime.cli import main as device

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_suffix(".txt")
FURTHER = (
    "perceiver_deploy.checkpoints.load",
    "perceiver_exporters.component.Blueprint",
    "perceiver_exporters.component.Component",
    "perceiver_exporters.component.Cut",
    "perceiver_exporters.export.export_bundle",
    "perceiver_exporters.weights.weights_sha256",
    "perceiver_runtime.golden.load_golden",
    "perceiver_runtime.manifest.Manifest",
    "perceiver_runtime.manifest.Source",
    "perceiver_runtime.pipeline.Pipeline",
    "perceiver_runtime.pipeline.Step",
    "perceiver_runtime.processing.image.classify",
    "perceiver_runtime.tensors.Profile",
    "perceiver_runtime.tensors.Range",
    "perceiver_runtime.tensors.TensorSpec",
)
"""Public names that are imported from their modules."""


def interface() -> str:
    """All of it, one name, parameter or option a line."""
    packages = ("perceiver_deploy", "perceiver_exporters", "perceiver_runtime")
    loader = griffe.GriffeLoader(search_paths=[ROOT, ROOT / "exporters", ROOT / "runtime"])
    for package in packages:
        loader.load(package)
    exported = [f"{p.__name__}.{name}" for p in (perceiver_deploy, perceiver_runtime) for name in sorted(p.__all__)]
    lines = [line for path in (*exported, *FURTHER) for line in _described(path, loader.modules_collection)]
    return "\n".join((*lines, *_export_options(), *_run_options(), ""))


def _described(path: str, modules: griffe.ModulesCollection) -> Iterator[str]:
    package, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(package), name)
    yield path
    if not hasattr(found, "__qualname__"):
        return
    item = modules[f"{found.__module__}.{found.__qualname__}"]
    if item.is_function:
        yield from _function(item, "    ")
        return
    if item.bases:
        yield f"    ({', '.join(map(str, item.bases))})"
    for name, member in item.members.items():
        if name.startswith("_"):
            continue
        if member.is_function:
            yield f"    {name}()"
            yield from _function(member, "        ")
        else:
            yield f"    {_typed(member)}{_default(member.value)}"


def _function(function: Any, indent: str) -> Iterator[str]:
    for parameter in function.parameters:
        if parameter.name not in ("self", "cls"):
            kind = " (keyword-only)" if parameter.kind is griffe.ParameterKind.keyword_only else ""
            yield f"{indent}{_typed(parameter)}{_default(parameter.default)}{kind}"
    yield f"{indent}-> {function.returns}"


def _typed(item: Any) -> str:
    return item.name if item.annotation is None else f"{item.name}: {item.annotation}"


def _default(value: Any) -> str:
    return "" if value is None else f" = {value}"


def _export_options() -> Iterator[str]:
    context = click.Context(program.group)
    for name, command in export_commands(context):
        yield f"perceiver-export {name}"
        for parameter in command.params:
            names = " ".join((*parameter.opts, *parameter.secondary_opts))
            choices = getattr(parameter.type, "names", None)
            shown = f" {{{','.join(choices)}}}" if choices else ""
            flag = isinstance(parameter, click.Option) and parameter.is_flag
            default = "" if flag or not isinstance(parameter.default, (str, int, float)) else f" = {parameter.default}"
            yield f"    {names}{shown}{default}{' (required)' if parameter.required else ''}"


def export_commands(context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """All commands of `perceiver-export` by name; one with commands of its own is followed by these."""
    for name in program.COMMANDS:
        command = program.group.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())


def _run_options() -> Iterator[str]:
    (commands,) = (a.choices for a in device._parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in commands.items():
        yield f"perceiver-run {name}"
        for action in parser._actions:
            names = " ".join(action.option_strings) or action.dest
            choices = f" {{{','.join(map(str, action.choices))}}}" if action.choices else ""
            default = "" if action.default in (None, False, [], argparse.SUPPRESS) else f" = {action.default}"
            yield f"    {names}{choices}{default}{' (required)' if action.required else ''}"


if __name__ == "__main__":
    RECORD.write_text(interface(), encoding="utf-8")
