"""Forms of a target: a reader of bytes or of JSON, with whole input that is damaged."""

from __future__ import annotations

import dataclasses
import random
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mutations import damaged, mutated

from perceiver_runtime.errors import BundleError

Once = Callable[[random.Random], object]
"""Reads one damaged input."""
Prepare = Callable[[Path], Once]
"""Makes a reader in an empty folder."""


@dataclass(frozen=True)
class OfBytes:
    """Reads one of some files with damaged bytes; a coverage-guided run gives `read` bytes of its own."""

    wholes: tuple[bytes, ...]
    read: Callable[[bytes], object]

    def __call__(self, chance: random.Random) -> object:
        return self.read(damaged(chance.choice(self.wholes), chance))


@dataclass(frozen=True)
class OfJson:
    """Reads a record with one damaged place; a coverage-guided run damages several."""

    whole: Any
    read: Callable[[Any], object]

    def __post_init__(self) -> None:
        self.read(self.whole)  # or every input would be refused for the same reason

    def __call__(self, chance: random.Random) -> object:
        return self.read(mutated(self.whole, chance))


def typed(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """A parser's ValueError as a BundleError, as its callers do."""

    def call(data: bytes) -> object:
        try:
            return read(data)
        except ValueError as error:
            raise BundleError(str(error)) from error

    return call


SIMPLE: Mapping[Any, Any] = {str: "x", int: 1, bool: True, float: 1.5, Any: {}}


def example(kind: Any) -> Any:
    """JSON that decodes to a type: every collection has one item, of a union the first member."""
    if dataclasses.is_dataclass(kind):
        return {name: example(hint) for name, hint in get_type_hints(kind).items()}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return example(next(each for each in arguments if each is not type(None)))
    if origin is Literal:
        return arguments[0]
    if origin is tuple:
        return [example(arguments[0])] * 3
    if origin is not None:
        return {"a": example(arguments[1])}
    return SIMPLE[kind]
