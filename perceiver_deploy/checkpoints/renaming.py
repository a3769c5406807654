"""Renaming of a foreign checkpoint's tensors: a table of rules that accounts for every tensor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from perceiver_deploy.checkpoints.files.tensors import Weights
from perceiver_runtime.errors import CheckpointError

SHOWN = 40
GROUPS = {"p": "(?P<p>weight|bias)", "i": r"(?P<i>\d+)", "j": r"(?P<j>\d+)"}


@dataclass(frozen=True)
class Rule:
    """Tensors whose whole name matches the regular expression `source` become `targets`.

    Targets may refer to the expression's groups. Two targets split the tensor evenly along its first axis, none
    leaves it out on purpose.
    """

    source: str
    targets: tuple[str, ...]


def rename(source: str, *targets: str) -> Rule:
    """A rule; `{p}` stands for `weight` or `bias`, `{i}` and `{j}` for indices."""
    pattern = source.replace(".", r"\.")
    for placeholder, group in GROUPS.items():
        pattern = pattern.replace(f"{{{placeholder}}}", group)
        targets = tuple(target.replace(f"{{{placeholder}}}", rf"\g<{placeholder}>") for target in targets)
    return Rule(pattern, targets)


def under(prefix: str, target: str, rules: Sequence[tuple[str, str]]) -> tuple[Rule, ...]:
    """The same renamings with prefixes: `prefix.a` to `target.b` for each (a, b)."""
    return tuple(rename(f"{prefix}.{a}", f"{target}.{b}") for a, b in rules)


def place(weights: Weights, rules: Sequence[Rule], state: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """For each tensor of a model's `state`: its name in the checkpoint, and its values as stored.

    Raises CheckpointError with all tensors that are left over, missing, duplicate or of the wrong shape.
    """
    filled: dict[str, tuple[str, Tensor]] = {}
    leftover, doubled = [], []
    for name, tensor in weights.tensors.items():
        targets = _targets(name, rules)
        if targets is None:
            leftover.append(name)
            continue
        for target, values in _split(targets, tensor):
            if target not in state:
                leftover.append(name)
            elif target in filled:
                doubled.append(f"{name} (already filled: {target})")
            else:
                filled[target] = name, values
    wrong = [
        f"{_both(name, source)}: expected {list(state[name].shape)}, got {list(tensor.shape)}"
        for name, (source, tensor) in filled.items()
        if tensor.shape != state[name].shape
    ]
    _refuse(str(weights.origin), leftover, [name for name in state if name not in filled], doubled, wrong)
    return filled


def _both(name: str, source: str) -> str:
    return name if name == source else f"{source} -> {name}"


def _targets(name: str, rules: Sequence[Rule]) -> tuple[str, ...] | None:
    for rule in rules:
        if match := re.fullmatch(rule.source, name):
            return tuple(match.expand(target) for target in rule.targets)
    return None


def _split(targets: tuple[str, ...], tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if len(targets) > 1 and tensor.ndim > 0:
        return zip(targets, tensor.tensor_split(len(targets)), strict=True)
    return ((target, tensor) for target in targets)


def _refuse(origin: str, leftover: list[str], missing: list[str], doubled: list[str], wrong: list[str]) -> None:
    found = {
        "tensors that the model has no place for": leftover,
        "tensors that the model needs and the checkpoint lacks": missing,
        "tensors for one and the same place": doubled,
        "shapes that differ": wrong,
    }
    if not any(found.values()):
        return
    lines = [f"{len(names)} {what}: {_some(names)}" for what, names in found.items() if names]
    raise CheckpointError(f"{origin}: the checkpoint does not fit the model its config describes; " + "; ".join(lines))


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
