"""The simulated TensorRT and CUDA have no name and no keyword that the real ones lack: they can't flatter our code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from enum import IntEnum
from typing import Any

import pytest
from engines.contract.install import ROOT, VERSIONS
from engines.contract.surface import surface
from engines.simulation.cudart import SimulatedCuda
from engines.simulation.trt import simulated_tensorrt

OWN = {"enqueue", "pending", "heap", "launches"}  # of the simulation itself
SOURCES = [ROOT / "runtime/perceiver_runtime" / folder for folder in ("cuda", "tensorrt")]
SINCE = {"IAttentionOutputLayer", "ATTENTION_OUTPUT"}  # only under `if rules.attention`


def simulated_classes() -> dict[str, type]:
    module = simulated_tensorrt(SimulatedCuda())
    return {name: value for name, value in vars(module).items() if isinstance(value, type)}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_simulated_tensorrt_name_is_real(version: str) -> None:
    real, wrong = surface(version), []
    for name, cls in simulated_classes().items():
        if name not in real.classes:
            wrong.append(name)
            continue
        for attribute, value in _public(cls).items():
            member = real.classes[name].get(attribute)
            if attribute in SINCE:
                continue
            if member is None:
                wrong.append(f"{name}.{attribute}")
            elif callable(value) and member["keywords"] is not None and not isinstance(value, type):
                unknown = set(list(inspect.signature(value).parameters)[1:]) - set(member["keywords"])
                wrong += [f"{name}.{attribute}({keyword}=)" for keyword in sorted(unknown)]
    assert wrong == []


def test_every_simulated_cuda_name_is_real() -> None:
    real = importlib.import_module("cuda.bindings.runtime")
    wrong = []
    for name, value in vars(SimulatedCuda).items():
        if name.startswith("_") or name in OWN:
            continue
        if not hasattr(real, name):
            wrong.append(name)
        elif isinstance(value, type) and issubclass(value, IntEnum):
            wrong += [f"{name}.{m}" for m in value.__members__ if int(getattr(getattr(real, name), m)) != int(value[m])]
        elif callable(value):
            signature = (getattr(real, name).__doc__ or "").split("\n")[0]
            names = list(inspect.signature(value).parameters)[1:]
            wrong += [f"{name}({n}=)" for n in names if n not in signature]
    assert wrong == []


def test_our_cuda_code_uses_only_what_is_simulated() -> None:
    """So that every CUDA call of the device code is exercised, and its name is known to be real."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for folder in SOURCES for path in sorted(folder.glob("*.py"))]
    found = (n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Attribute))
    used = {n.attr for n in found if re.match("cuda[A-Z]", n.attr)}
    assert len(used) > 20
    assert used <= set(vars(SimulatedCuda)) | {m for e in _enums() for m in e.__members__}


def _enums() -> list[Any]:
    return [v for v in vars(SimulatedCuda).values() if isinstance(v, type) and issubclass(v, IntEnum)]


def _public(cls: type) -> dict[str, Any]:
    members = dict(getattr(cls, "__members__", {}))
    own = {n: v for base in cls.__mro__[:-1] for n, v in vars(base).items() if not issubclass(cls, IntEnum)}
    return {**{n: v for n, v in own.items() if not n.startswith("_") and n not in ("refused", "steps")}, **members}
