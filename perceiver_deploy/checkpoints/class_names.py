"""Names of classes in a config.json of transformers and of packages that build on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perceiver_deploy.checkpoints.fields import shown
from perceiver_runtime.errors import CheckpointError


def class_names(named: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Names of `id2label` in order of the classes' numbers, which are its keys "0", "1" and so on.

    Raises:
        CheckpointError: Keys are not the numbers from 0 on, or a name is neither text nor a number.
    """
    numbers = {key: int(key) for key in named if re.fullmatch("[0-9]{1,9}", key)}
    if strange := [key for key in named if key not in numbers]:
        raise CheckpointError(
            f'{where}: id2label: expected names by class number, as {{"0": "cat", "1": "dog"}}, got the key '
            f"{shown(strange[0])}; is the map the wrong way round?"
        )
    if sorted(numbers.values()) != list(range(len(named))):
        got = ", ".join(map(str, sorted(numbers.values())[:20]))
        raise CheckpointError(f"{where}: id2label: expected each class from 0 to {len(named) - 1} once, got {got}")
    for key, name in named.items():
        if not isinstance(name, (str, int, float)) or isinstance(name, bool):
            raise CheckpointError(f"{where}: id2label: expected a name for class {key}, got {shown(name)}")
    return tuple(str(named[key]) for key in sorted(named, key=numbers.__getitem__))
