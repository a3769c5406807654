"""How a module is called: named arrays to the arguments of its `forward`, and its results to named tensors."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_runtime.errors import UsageError
from perceiver_runtime.suggest import did_you_mean
from perceiver_runtime.tensors import Array

Example = Mapping[str, Any]
"""Inputs by the names of `forward`'s parameters: arrays with a batch axis; other values are constants of the graph.

An entry of a dict or list is named with a dot: `inputs.image`.
"""


class Called(nn.Module):
    """A module as a function of its tensor inputs, in the order of `names`, to a tuple of tensors.

    Args:
        module: The module.
        example: An example call.

    Attributes:
        names: Names of the tensor inputs.
        seen: What a call has shown: the names of the results. PyTorch undoes assignments to the module itself.
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        super().__init__()
        check_names(module, example)
        self.module = module
        self.names = tuple(name for name, value in example.items() if is_array(value))
        self.constants = {name: value for name, value in example.items() if not is_array(value)}
        self.seen = _Seen()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Call the module by keywords; what can't be named so, by position."""
        values = _nested({**dict(zip(self.names, tensors, strict=True)), **self.constants})
        parameters = _parameters(self.module)
        positional = [values.pop(p.name) for p in parameters if p.kind is p.POSITIONAL_ONLY and p.name in values]
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            known = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
            positional += [values.pop(name) for name in list(values) if name not in known]
        named = dict(_leaves(self.module(*positional, **values), ""))
        if not named:
            raise UsageError(f"{type(self.module).__name__}: expected a result with tensors, got none")
        self.seen.outputs = tuple(named)
        return tuple(named.values())


class _Seen:
    outputs: tuple[str, ...] = ()


def is_array(value: object) -> bool:
    """Whether an entry of an example is an input, rather than a constant."""
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0


def check_names(module: nn.Module, example: Example) -> None:
    """Raise UsageError for an input that `forward` lacks, or that the example lacks."""
    parameters = _parameters(module)
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    kind = type(module).__name__
    given = dict.fromkeys(name.partition(".")[0] for name in example)
    if not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        for name in given:
            if name not in names:
                raise UsageError(
                    f"inputs: expected inputs that {kind}.forward takes ({', '.join(names)}), got {name!r:.80}"
                    f"{did_you_mean(name, names)}"
                )
    required = [p.name for p in parameters if p.default is p.empty and p.name in names]
    if missing := [name for name in required if name not in given]:
        raise UsageError(
            f"inputs: {kind}.forward needs {', '.join(missing)}, got {', '.join(given) or 'none'}; give an example of "
            "each, as an array by its name"
        )


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    return list(inspect.signature(module.forward).parameters.values())


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Entries with dotted names as dicts, or as lists where all keys are numbers."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        place = tree
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return {
        key: _listed(value) if "." in "".join(n for n in values if n.startswith(f"{key}.")) else value
        for key, value in tree.items()
    }


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    entries = {key: _listed(each) for key, each in value.items()}
    if not all(key.isdigit() for key in entries):
        return entries
    numbered = {int(key): each for key, each in entries.items()}
    if sorted(numbered) != list(range(len(entries))):
        raise UsageError(f"inputs: expected the entries 0 to {len(entries) - 1} of a list, got {', '.join(entries)}")
    return [numbered[number] for number in range(len(entries))]


def _leaves(result: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a result, named by keys, fields or numbers; other values are left out."""
    if isinstance(result, Tensor):
        yield name or "output", result
        return
    for key, value in _entries(result):
        yield from _leaves(value, f"{name}.{key}" if name else key)


def _entries(result: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(result, Mapping):  # ModelOutput of transformers too
        yield from ((str(key), value) for key, value in result.items())
    elif dataclasses.is_dataclass(result):
        yield from ((f.name, getattr(result, f.name)) for f in dataclasses.fields(result))
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        yield from zip(result._fields, result, strict=True)
    elif isinstance(result, tuple | list):
        yield from ((f"output_{i}", value) for i, value in enumerate(result))


def tensors(example: Example) -> dict[str, Tensor]:
    """The inputs of an example as tensors."""
    return {name: torch.as_tensor(value) for name, value in example.items() if is_array(value)}


def arrays(example: Example) -> dict[str, Array]:
    """The inputs of an example as arrays."""
    return {name: np.asarray(value) for name, value in example.items() if is_array(value)}
