"""Conditions on sizes that a trace rests on: they hold for every size of the profile, or the export is refused."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import sympy
import torch
from torch import fx

from perceiver_runtime.errors import CheckError
from perceiver_runtime.tensors import Profile

MAX_SIZES = 20_000
"""Combinations of sizes for which one condition is evaluated; some seconds."""


def check_conditions(graph: fx.Graph, symbols: Mapping[str, str], profile: Profile, places: Mapping[str, str]) -> None:
    """Evaluate each condition that the trace took to be true, at all sizes.

    Args:
        graph: A traced program, whose assertions are the conditions that PyTorch could not prove.
        symbols: Names of the dimensions by PyTorch's symbols.
        profile: Ranges of the dimensions.
        places: Where in the user's code conditions were made, by their text.

    Raises:
        CheckError: One is false for some sizes, where the module computes something else; or there are too many sizes.
    """
    for expression in _conditions(graph):
        free = sorted(expression.free_symbols, key=str)
        if not all(str(symbol) in symbols for symbol in free):
            continue  # on the content of an input: `export_program` refuses that
        names = [symbols[str(symbol)] for symbol in free]
        ranges = [profile.dimensions[name] for name in names]
        where = f" at {places[str(expression)]}" if str(expression) in places else ""
        if (count := math.prod(r.max - r.min + 1 for r in ranges)) > MAX_SIZES:
            raise CheckError(
                f"a condition on {', '.join(names)}{where} can't be proven, and there are {count:,} sizes to try; "
                f"narrow them with --range, to at most {MAX_SIZES:,}"
            )
        for sizes in itertools.product(*(range(r.min, r.max + 1) for r in ranges)):
            if not bool(expression.xreplace(dict(zip(free, map(sympy.Integer, sizes), strict=True)))):
                shown = ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
                raise CheckError(
                    f"the module computes something else for {shown}{where}; narrow the range with --range, fix the "
                    "size with --dynamic, or remove the condition"
                )


def _conditions(graph: fx.Graph) -> Iterator[sympy.Basic]:
    for node in graph.nodes:
        asserted = node.args[0] if node.target is torch.ops.aten._assert_scalar.default else None
        value = asserted.meta["val"] if isinstance(asserted, fx.Node) else None
        if isinstance(value, torch.SymBool):
            yield value.node.expr


def line_of(node: fx.Node) -> str:
    """Where in the user's code a node was traced, for messages; empty if that is not known."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    users = [f"{file}:{line}" for file, line in lines if is_users(file)]
    return f" at {users[-1]}" if users else ""


def is_users(filename: str) -> bool:
    """Whether a file is none of PyTorch's and none of this project's."""
    parts = Path(filename).parts
    return not {"torch", "perceiver_exporters", "perceiver_deploy"} & set(parts) and not filename.startswith("<")
