"""Frozen dataclasses to JSON and back, strictly: unknown, missing or mistyped fields are refused by path."""

from __future__ import annotations

import dataclasses
import reprlib
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from perceiver_runtime.errors import BundleError

T = TypeVar("T")
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 80


def encode(value: Any) -> Any:
    """Dataclasses, mappings and tuples as JSON-ready dicts and lists; fields at their default are kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


def shown(value: Any) -> str:
    """A short representation of an untrusted value for messages, however long or deeply nested it is."""
    return _SHOWN.repr(value)[:80]


def decode(kind: type[T], value: Any, where: str = "manifest") -> T:
    """Build `kind` from parsed JSON. Raises BundleError naming the path of the first thing that does not fit."""
    result: T = _decode(kind, value, where)
    return result


def _decode(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(arguments, value, where)
    if origin is Literal:
        return _require(value in arguments, value, where, f"one of {', '.join(map(str, arguments))}")
    if origin is tuple:
        _require(isinstance(value, list), value, where, "a list")
        return tuple(_decode(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        _require(isinstance(value, dict), value, where, "an object")
        return {k: _decode(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    return _scalar(kind, value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _require(isinstance(value, dict), value, where, "an object")
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - set(fields)):
        raise BundleError(f"{where}: unknown field {', '.join(unknown)}; expected {', '.join(fields)}")
    given = {name: _decode(hints[name], value[name], f"{where}.{name}") for name in fields if name in value}
    required = [
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing := [n for n in required if n not in given]:
        raise BundleError(f"{where}: missing field {', '.join(missing)}")
    return kind(**given)


def _union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    options = [a for a in arguments if a is not type(None)]
    if len(options) > 1 and isinstance(value, dict):  # of several dataclasses, the one that has these fields
        options.sort(key=lambda option: not _has_fields(option, value))
    for option in options:
        if not isinstance(option, type) or dataclasses.is_dataclass(option) or _is(option, value):
            return _decode(option, value, where)
    return _require(False, value, where, " or ".join(getattr(o, "__name__", str(o)) for o in options))


def _has_fields(kind: Any, value: dict[str, Any]) -> bool:
    return dataclasses.is_dataclass(kind) and set(value) <= {field.name for field in dataclasses.fields(kind)}


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not (kind in (int, float) and isinstance(value, bool))


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and _is(int, value):
        try:
            return float(value)
        except OverflowError:
            raise BundleError(f"{where}: expected a number that a double holds, got an integer beyond it") from None
    return _require(_is(kind, value), value, where, kind.__name__)


def _require(holds: bool, value: Any, where: str, expected: str) -> Any:
    if not holds:
        raise BundleError(f"{where}: expected {expected}, got {shown(value)}")
    return value
