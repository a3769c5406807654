"""What our code asks of TensorRT, read from its source: every attribute, enum member and keyword, with its condition.

The module is called `trt` everywhere. A variable's class is known from `trt.Class(...)`, from an annotation that
bears TensorRT's own class name (`perceiver_runtime.tensorrt.api`), or from what a method returns in the real API. A use
under `if rules.flag:`, behind `if not rules.flag: raise`, or in a function that is only called so, is asked of
those versions alone whose `Dialect` has the flag.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.contract.surface import Surface

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Use:
    """`owner.attribute(keywords)`; `owner` is empty for a function or class of the module itself."""

    owner: str
    attribute: str
    keywords: tuple[str, ...]
    flags: frozenset[str]
    where: str


def uses(paths: list[Path], surfaces: list[Surface]) -> list[Use]:
    """All uses in these files. Types come from annotations and from what `surfaces` say that methods return."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    gates = _function_gates(list(trees.values()))
    reader = _Reader({name for s in surfaces for name in s.classes}, _returns(surfaces), gates)
    for path, tree in trees.items():
        reader.read(path, tree)
    return reader.found


def missing(use: Use, surface: Surface) -> str | None:
    """Why a use does not hold in this API, or None."""
    if not use.owner:
        known = use.attribute in surface.classes or use.attribute in surface.functions
        member = surface.functions.get(use.attribute) or surface.classes.get(use.attribute, {}).get("__init__")
    else:
        known = use.attribute in surface.classes.get(use.owner, {})
        member = surface.classes.get(use.owner, {}).get(use.attribute)
    name = f"{use.owner or surface.module}.{use.attribute}"
    if not known:
        return f"{use.where}: {surface.module} {surface.version} has no {name}"
    accepted = (member or {}).get("keywords")
    unknown = [] if accepted is None else [k for k in use.keywords if k not in accepted]
    return f"{use.where}: {surface.module} {surface.version}: {name} takes no {', '.join(unknown)}" if unknown else None


def _returns(surfaces: list[Surface]) -> dict[tuple[str, str], str]:
    return {
        (owner, name): member["returns"]
        for surface in surfaces
        for owner, members in surface.classes.items()
        for name, member in members.items()
        if member["returns"] in surface.classes
    }


class _Reader(ast.NodeVisitor):
    def __init__(
        self, classes: set[str], returns: Mapping[tuple[str, str], str], gates: Mapping[str, frozenset[str]]
    ) -> None:
        self.found: list[Use] = []
        self._classes, self._returns, self._gates = classes, returns, gates
        self._types: dict[str, str] = {}
        self._flags: frozenset[str] = frozenset()
        self._path = Path()

    def read(self, path: Path, tree: ast.Module) -> None:
        self._path, self._types = path, _attribute_types(tree, self._classes)
        self._body(tree.body)

    def _body(self, statements: list[ast.stmt]) -> None:
        outer = self._flags
        for statement in statements:
            self.visit(statement)
            self._flags |= _guard(statement)
        self._flags = outer

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        outer, self._flags = self._flags, self._flags | _positive(node.test)
        self._body(node.body)
        self._flags = outer
        self._body(node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        outer, self._flags = self._flags, self._flags | _positive(node.test)
        self.visit(node.body)
        self._flags = outer
        self.visit(node.orelse)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            if (owner := _module_member(base)) is not None:
                self._use("", owner, (), base)
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                        self._use(owner, method.name, tuple(a.arg for a in method.args.args[1:]), method)
        self._body(node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, flags = dict(self._types), self._flags
        self._flags |= self._gates.get(node.name, frozenset())
        for argument in (*node.args.args, *node.args.kwonlyargs):
            self._annotate(argument.arg, argument.annotation)
        self._body(node.body)
        self._types, self._flags = outer, flags

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self._annotate(node.target.id, node.annotation)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        kind = self._type(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name) and kind is not None:
                self._types[target.id] = kind

    def visit_Call(self, node: ast.Call) -> None:
        keywords = tuple(k.arg for k in node.keywords if k.arg is not None)
        if isinstance(node.func, ast.Attribute):
            self._attribute(node.func, keywords)
            self.visit(node.func.value)
        else:
            self.visit(node.func)
        for argument in (*node.args, *(k.value for k in node.keywords)):
            self.visit(argument)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._attribute(node, ())
        self.generic_visit(node)

    def _attribute(self, node: ast.Attribute, keywords: tuple[str, ...]) -> None:
        if node.attr.startswith("__"):
            return
        if isinstance(node.value, ast.Name) and node.value.id == "trt":
            self._use("", node.attr, keywords, node)
        elif (owner := self._type(node.value)) is not None and not (owner == "ILogger" and node.attr == "Severity"):
            self._use(owner, node.attr, keywords, node)

    def _type(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return self._types.get(node.id)
        if isinstance(node, ast.Attribute):
            known = _module_member(node)
            return known if known in self._classes else self._types.get(ast.unparse(node))
        if not isinstance(node, ast.Call):
            return None
        if (constructed := _module_member(node.func)) is not None:
            return constructed if constructed in self._classes else None
        if isinstance(node.func, ast.Attribute) and (owner := self._type(node.func.value)) is not None:
            return self._returns.get((owner, node.func.attr))
        return None

    def _annotate(self, name: str, annotation: ast.expr | None) -> None:
        self._types.pop(name, None)
        if isinstance(annotation, ast.Name) and annotation.id in self._classes:
            self._types[name] = annotation.id

    def _use(self, owner: str, attribute: str, keywords: tuple[str, ...], node: ast.AST) -> None:
        where = f"{self._path.name}:{getattr(node, 'lineno', 0)}"
        self.found.append(Use(owner, attribute, keywords, self._flags, where))


def _module_member(node: ast.expr) -> str | None:
    """`X` of `trt.X`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trt":
        return node.attr
    return None


def _attribute_types(tree: ast.Module, classes: set[str]) -> dict[str, str]:
    """Classes of `self.x` where the source says `self.x: Class = ...`."""
    return {
        ast.unparse(node.target): node.annotation.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Attribute)
        and isinstance(node.annotation, ast.Name)
        and node.annotation.id in classes
    }


def _positive(test: ast.expr) -> frozenset[str]:
    """Flags of `rules` that hold where `test` does."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return frozenset().union(*map(_positive, test.values))
    if isinstance(test, ast.Attribute) and ast.unparse(test.value).removeprefix("self.") in ("rules", "_rules"):
        return frozenset({test.attr})
    return frozenset()


def _guard(statement: ast.stmt) -> frozenset[str]:
    """Flags that hold behind `if not rules.flag: raise` (or return)."""
    if (
        isinstance(statement, ast.If)
        and isinstance(statement.test, ast.UnaryOp)
        and isinstance(statement.test.op, ast.Not)
        and isinstance(statement.body[-1], (ast.Raise, ast.Return))
    ):
        return _positive(statement.test.operand)
    return frozenset()


def _function_gates(trees: list[ast.Module]) -> dict[str, frozenset[str]]:
    """Flags under which a function is called at all of its call sites."""
    sites: dict[str, list[frozenset[str]]] = defaultdict(list)
    for tree in trees:
        for name, flags in _calls(tree.body, frozenset()):
            sites[name].append(flags)
    return {name: frozenset.intersection(*flags) for name, flags in sites.items() if frozenset.intersection(*flags)}


def _calls(body: list[ast.stmt], flags: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _calls(statement.body, flags | _positive(statement.test))
            yield from _calls(statement.orelse, flags)
        elif isinstance(statement, (*FUNCTIONS, ast.ClassDef, ast.With, ast.For, ast.Try)):
            yield from _calls(statement.body, flags)
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Call):
                    yield ast.unparse(node.func).split(".")[-1], flags
        flags |= _guard(statement)
