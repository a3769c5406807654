"""Write docs/manifest.schema.json, the JSON Schema (2020-12) of a bundle's manifest, from the manifest's dataclasses.

python docs/manifest_schema.py
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from perceiver_runtime.bundle import MANIFEST_SCHEMA
from perceiver_runtime.manifest import SCHEMA_VERSION, Manifest

FILE = Path(__file__).with_name("manifest.schema.json")
SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def manifest_schema() -> dict[str, Any]:
    """The schema: as strict as the runtime's reader about names, types and what is required."""
    definitions: dict[str, Any] = {}
    _of(Manifest, definitions)
    top = definitions.pop("Manifest")
    top["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    top["properties"] |= {
        name: {"deprecated": True, "description": "No longer written; ignored."} for name in MANIFEST_SCHEMA.retired
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "manifest.json of a Perceiver bundle",
        **top,
        "$defs": dict(sorted(definitions.items())),
    }


def _of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; dataclasses are added to the definitions."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if dataclasses.is_dataclass(kind):
        name = getattr(kind, "__name__")  # noqa: B009
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = _object(kind, definitions)
        return {"$ref": f"#/$defs/{name}"}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(argument, definitions) for argument in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0], definitions)}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    return {"type": SCALARS[kind]}


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, texts = get_type_hints(kind), _attributes(kind.__doc__)
    described = {
        field.name: _of(hints[field.name], definitions)
        | ({"description": texts[field.name]} if field.name in texts else {})
        for field in dataclasses.fields(kind)
    }
    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return {
        "type": "object",
        "description": " ".join(kind.__doc__.split("\n\n")[0].split()),
        "properties": described,
        "required": required,
        "additionalProperties": False,
    }


def _attributes(docstring: str) -> dict[str, str]:
    """The attributes that a docstring describes."""
    _, _, section = docstring.partition("Attributes:\n")
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {9,}\S.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def main() -> None:
    """Write the file."""
    FILE.write_text(json.dumps(manifest_schema(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
