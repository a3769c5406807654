"""Damage to JSON and to bytes, by a seeded generator."""

from __future__ import annotations

import random
from typing import Any

NESTED: Any = []
for _ in range(500):
    NESTED = [NESTED]
ODD = (None, True, -1, 0, 1.5, 2**70, int("9" * 290), "", "x" * 300, "\x00", [], [1, [2]], {}, {"a": {}}, NESTED)


def mutated(value: Any, random_: random.Random) -> Any:
    """The value with one place in it replaced, dropped or doubled."""
    if isinstance(value, dict) and value and random_.random() < 0.9:
        key = random_.choice(list(value))
        kind = random_.random()
        if kind < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.2:
            return {**value, random_.choice(("", "zz", "__metadata__")): random_.choice(ODD)}
        return {**value, key: mutated(value[key], random_)}
    if isinstance(value, list) and value and random_.random() < 0.9:
        place = random_.randrange(len(value))
        return [*value[:place], mutated(value[place], random_), *value[place + (random_.random() < 0.8) :]]
    return random_.choice(ODD)


def damaged(data: bytes, random_: random.Random) -> bytes:
    """Bytes overwritten, cut off or put in."""
    place, kind = random_.randrange(len(data)), random_.random()
    if kind < 0.2:
        return data[:place]
    noise = random_.randbytes(random_.choice((1, 1, 2, 8)))
    return data[:place] + noise + data[place + (len(noise) if kind < 0.9 else 0) :]
