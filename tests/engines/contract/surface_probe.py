"""Run in a process of its own: import one bindings package and print its surface as JSON.

    LD_LIBRARY_PATH=<stubs> python surface_probe.py <directory of the package> <package name>

The surface is {"version", "functions": {name: member}, "classes": {name: {attribute: member}}}, where a member is
{"keywords": [...] or null, "returns": class name or null}. pybind11 writes signatures into docstrings; all overloads
of a name are merged. Enum members are attributes without keywords.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from typing import Any

SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((?P<parameters>.*)\) -> (?P<returns>.+)$", re.MULTILINE)
PARAMETER = re.compile(r"(?:^|, )\*{0,2}(\w+)(?=[:,=]|$)")
BRACKETS = re.compile(r"\[[^\[\]]*\]|<[^<>]*>|\([^()]*\)")


def member(value: Any) -> dict[str, Any]:
    """Keywords and class of the result of a callable; both null for anything else."""
    if not callable(value) or isinstance(value, type):
        return {"keywords": None, "returns": None}
    signatures = list(SIGNATURE.finditer(value.__doc__ or ""))
    if not signatures:
        return {"keywords": python_parameters(value), "returns": None}
    keywords = sorted({name for found in signatures for name in PARAMETER.findall(plain(found["parameters"]))})
    returns = signatures[-1]["returns"].split(".")[-1]
    return {"keywords": keywords, "returns": returns}


def plain(parameters: str) -> str:
    """Without nested brackets, whose commas separate no parameters."""
    while (shorter := BRACKETS.sub("", parameters)) != parameters:
        parameters = shorter
    return parameters


def python_parameters(value: Any) -> list[str] | None:
    """Parameters of a function written in Python; null where it can't be told."""
    try:
        return list(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return None


def describe(cls: type) -> dict[str, Any]:
    """Public attributes of a class, and its constructor."""
    names = [name for name in dir(cls) if not name.startswith("_") or name == "__init__"]
    return {name: member(getattr(cls, name)) for name in (*names, *getattr(cls, "__members__", ()))}


def main() -> None:
    """Print the surface."""
    sys.path.insert(0, sys.argv[1])
    module = importlib.import_module(sys.argv[2])
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    classes = {name: describe(value) for name, value in public.items() if isinstance(value, type)}
    functions = {name: member(value) for name, value in public.items() if callable(value) and name not in classes}
    json.dump({"version": module.__version__, "classes": classes, "functions": functions}, sys.stdout)


if __name__ == "__main__":
    main()
