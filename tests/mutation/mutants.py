"""Change one thing at a time in modules that decide about right and wrong, and see that their tests notice.

    python tests/mutation/mutants.py [--area manifest] [--mutants 100] [--seed 0] [--json FILE]

A mutant swaps a comparison, an operator, `and` and `or`, or a truth value, adds one to a number, negates a condition,
or leaves out a statement. Each is compiled in a forked process in which the libraries, but not the product, are
imported; it is killed if one of the area's tests fails, or if they take longer than `LIMIT_S` of processor time. The
exit code is 1 if less than 85% are killed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import json
import os
import random
import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
RUNTIME, PRECISION = "runtime/perceiver_runtime", "exporters/perceiver_exporters/precision"
LIMIT_S = 60
ENOUGH = 0.85


@dataclass(frozen=True)
class Area:
    """Modules, the tests that hold them, and what these import that is slow."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    libraries: tuple[str, ...] = ("numpy", "onnx", "onnxruntime", "hypothesis", "safetensors.numpy")


AREAS = {
    "manifest": Area(
        tuple(f"{RUNTIME}/{name}.py" for name in ("manifest", "format/digest", "format/schema", "format/versions")),
        tuple(
            f"tests/runtime/test_{name}.py"
            for name in ("digest", "schema", "schema_versions", "wiring", "bundle_damage")
        ),
    ),
    "parity": Area(
        tuple(f"{RUNTIME}/measure/{name}.py" for name in ("compare", "parity", "spread", "tolerances", "verify")),
        tuple(f"tests/runtime/test_{name}.py" for name in ("parity_compare", "self_test", "verify_measure")),
    ),
    "precision": Area(
        tuple(f"{PRECISION}/{name}.py" for name in ("formats", "calibration/histogram", "calibration/methods")),
        tuple(f"tests/exporters/test_{name}.py" for name in ("precision_numbers", "precision_calibration")),
        ("torch", "onnx", "onnxruntime", "onnx_ir", "onnxscript", "hypothesis", "safetensors.torch"),
    ),
}
SWAPS: dict[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.And: ast.Or, ast.Or: ast.And},
}


@dataclass(frozen=True)
class Mutant:
    """One change: of the node at this place of the walk over the module."""

    module: str
    node: int
    line: int
    change: str
    killed: bool | None = None


def mutants(module: str) -> Iterator[Mutant]:
    """All mutants of a module."""
    for number, node in enumerate(_walk(ast.parse((ROOT / module).read_text(encoding="utf-8")))):
        if change := _change(node):
            yield Mutant(module, number, node.lineno, change)  # type: ignore[attr-defined]


def _walk(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes outside of annotations, `__all__` and messages."""
    for node in ast.iter_child_nodes(tree):
        yield from _below(node)


def _below(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr)):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _below(child)


def _change(node: ast.AST) -> str:
    """What can be changed at a node; empty if nothing."""
    if isinstance(node, ast.Compare):
        return f"{type(node.ops[0]).__name__} to {SWAPS[type(node.ops[0])].__name__}"
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)):
        return f"{type(node.op).__name__} to {SWAPS[type(node.op)].__name__}" if type(node.op) in SWAPS else ""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return f"{node.value} to {not node.value}"
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return f"{node.value} to {node.value + 1}"
    if isinstance(node, (ast.If, ast.IfExp)):
        return "condition negated"
    if isinstance(node, (ast.Raise, ast.Assign)) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return f"{type(node).__name__} left out" if _in_function(node) else ""
    return ""


def _in_function(node: ast.stmt) -> bool:
    return node.col_offset > 0 and not isinstance(node, ast.Assign)


def mutated(mutant: Mutant) -> CodeType:
    """The code of the module with the change."""
    tree = ast.parse((ROOT / mutant.module).read_text(encoding="utf-8"))
    node = list(_walk(tree))[mutant.node]
    if isinstance(node, ast.Compare):
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)):
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, (ast.If, ast.IfExp)):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    else:
        _Without(node).visit(tree)
    return compile(ast.fix_missing_locations(tree), str(ROOT / mutant.module), "exec")


class _Without(ast.NodeTransformer):
    def __init__(self, node: ast.AST) -> None:
        self._node = node

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.Pass() if node is self._node else self.generic_visit(node)


def survives(mutant: Mutant | None, area: Area) -> bool:
    """Whether the area's tests pass with the mutant (None: without one), in a forked process."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (_used() + LIMIT_S, _used() + LIMIT_S))
            code = int(_tests(mutant, area))
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def _used() -> int:
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_utime)


def _tests(mutant: Mutant | None, area: Area) -> int:
    import pytest

    code = SourceFileLoader.get_code
    changed = None if mutant is None else mutated(mutant)

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        if mutant is not None and Path(loader.path) == ROOT / mutant.module:
            return changed
        return code(loader, name)

    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", "--hypothesis-seed=0"]
    with mock.patch.object(SourceFileLoader, "get_code", get_code), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return pytest.main([*options, *(str(ROOT / test) for test in area.tests)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", choices=AREAS, action="append", help="default: all")
    parser.add_argument("--mutants", type=int, default=100, help="of each area, drawn (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.chdir(ROOT)
    found: list[Mutant] = []
    print("| Area | Modules | Mutants | Drawn | Killed | |\n|---|---|---|---|---|---|")
    passed = True
    for name in given.area or AREAS:
        area = AREAS[name]
        for library in area.libraries:
            importlib.import_module(library)
        assert survives(None, area), f"{name}: tests fail without a mutant"
        possible = [mutant for module in area.modules for mutant in mutants(module)]
        drawn = random.Random(given.seed).sample(possible, min(given.mutants, len(possible)))
        tried = [replace(m, killed=not survives(m, area)) for m in sorted(drawn, key=lambda m: (m.module, m.line))]
        killed = sum(bool(mutant.killed) for mutant in tried)
        share = killed / len(tried)
        passed &= share >= ENOUGH
        print(f"| {name} | {len(area.modules)} | {len(possible)} | {len(tried)} | {killed} | {share:.0%} |", flush=True)
        for mutant in tried:
            if not mutant.killed:
                print(f"  {mutant.module}:{mutant.line}: {mutant.change}", file=sys.stderr, flush=True)
        found += tried
    if given.json:
        given.json.write_text(json.dumps([asdict(mutant) for mutant in found], indent=1) + "\n", encoding="utf-8")
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
