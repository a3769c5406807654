"""Decoding of records: what fits becomes the dataclass, what does not is refused with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import tiny_bundles

from perceiver_runtime import BundleError, load_bundle
from perceiver_runtime.format import schema


@dataclass(frozen=True)
class Circle:
    radius: float


@dataclass(frozen=True)
class Box:
    width: float
    height: float = 1.0


@dataclass(frozen=True)
class Drawing:
    name: str
    shapes: tuple[Circle | Box, ...] = ()
    sizes: Mapping[str, int] | None = None
    colour: Literal["red", "blue"] = "red"
    scale: float | str = 1.0
    anything: Any = None


WHOLE = {
    "name": "a",
    "shapes": [{"radius": 2}, {"width": 1.5, "height": 2}, {"width": 3.0}],
    "sizes": {"x": 3},
    "colour": "blue",
    "scale": "large",
    "anything": [None, {"b": 1}],
}


def test_a_record_becomes_its_dataclass() -> None:
    drawing = schema.decode(Drawing, WHOLE)
    shapes = (Circle(2.0), Box(1.5, 2.0), Box(3.0))
    assert drawing == Drawing("a", shapes, {"x": 3}, "blue", "large", [None, {"b": 1}])
    assert [type(number) for number in (shapes[0].radius, drawing.shapes[1].height)] == [float, float]
    assert schema.decode(Drawing, {"name": "a", "sizes": None}) == Drawing("a")
    assert schema.decode(Drawing, schema.encode(drawing)) == drawing


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": 3}, r"\.name: expected str, got 3"),
        ({"name": None}, r"\.name: expected str, got None"),
        ({"shapes": {"radius": 1}}, r"\.shapes: expected a list, got "),
        ({"shapes": [3]}, r"\.shapes\[0\]: expected an object, got 3"),
        ({"shapes": [{"radius": 1}, {"radius": "wide"}]}, r"\.shapes\[1\]\.radius: expected float, got 'wide'"),
        ({"shapes": [{"radius": True}]}, r"\.shapes\[0\]\.radius: expected float, got True"),
        ({"shapes": [{"radius": 10**400}]}, r"\.radius: expected a number that a double holds"),
        ({"shapes": [{"width": 1, "depth": 1}]}, r"\.shapes\[0\]: unknown field "),
        ({"shapes": [{"height": 1}]}, r"\.shapes\[0\]: missing field width"),
        ({"sizes": [1]}, r"\.sizes: expected an object, got \[1\]"),
        ({"sizes": {"x": 1.5}}, r"\.sizes\.x: expected int, got 1\.5"),
        ({"sizes": {"x": True}}, r"\.sizes\.x: expected int, got True"),
        ({"colour": "green"}, r"\.colour: expected one of red, blue, got 'green'"),
        ({"scale": None}, r"\.scale: expected float or str, got None"),
        ({"scale": [1]}, r"\.scale: expected float or str, got \[1\]"),
        ({"size": 1, "age": 2}, r"unknown field age, size; expected name, shapes, "),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        schema.decode(Drawing, {**WHOLE, **changed})


def test_the_record_itself_must_be_an_object_with_all_that_is_required() -> None:
    with pytest.raises(BundleError, match="expected an object, got "):
        schema.decode(Drawing, [WHOLE])
    with pytest.raises(BundleError, match="missing field name"):
        schema.decode(Drawing, {})


def test_a_component_is_found_by_its_name(bundle: Path) -> None:
    manifest = load_bundle(bundle).manifest
    assert [manifest.component(entry.name) for entry in manifest.components] == list(manifest.components)
    with pytest.raises(KeyError, match="no such component"):
        manifest.component("no such component")


def test_what_older_bundles_do_not_say_is_nothing(copy: Path) -> None:
    """Fields of later releases."""

    def older(manifest: dict[str, Any]) -> None:
        for record, field in (("components", "recurrent_flops"), ("tolerances", "centred_noise")):
            for entry in manifest[record]:
                entry.pop(field, None)

    tiny_bundles.change(copy, older)
    manifest = load_bundle(copy).manifest
    assert {entry.recurrent_flops for entry in manifest.components} == {0}
    assert {entry.centred_noise for entry in manifest.tolerances} == {0.0}
