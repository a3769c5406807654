"""A pipeline that does not fit its components is refused when the bundle is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bundles import change

from perceiver_runtime import BundleError, load_bundle

Edit = Callable[[dict[str, Any]], object]


def _step(component: str, edit: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda m: edit(next(s for s in m["pipeline"]["steps"] if s["component"] == component))


def _component(name: str, edit: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda m: edit(next(c for c in m["components"] if c["name"] == name))


def _pipeline(edit: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda m: edit(m["pipeline"])


MISFITS: dict[str, tuple[Edit, str]] = {
    "unknown component": (_step("head", lambda s: s.update(component="tail")), "no such component"),
    "unknown graph input": (_step("head", lambda s: s.update(inputs={"y": "latents"})), "graph input y unknown"),
    "graph input not fed": (_step("encoder", lambda s: s["inputs"].pop("mask")), "mask is fed by no value"),
    "unknown graph output": (_step("head", lambda s: s.update(outputs={"y": "logits"})), "graph output y unknown"),
    "value made by nobody": (_step("head", lambda s: s.update(inputs={"latents": "x2"})), "reads x2, which no input"),
    "value made later": (_pipeline(lambda p: p["steps"].insert(0, p["steps"].pop(3))), "reads latents, which no input"),
    "wrong shape": (_step("head", lambda s: s.update(inputs={"latents": "x"})), "6 is 6, but the value has 4"),
    "wrong rank": (_step("head", lambda s: s.update(inputs={"latents": "total"})), "gets a value of shape"),
    "wrong type": (_pipeline(lambda p: p["inputs"][0].update(dtype="float16")), "gets value x: float16"),
    "unknown type": (_component("head", lambda c: c["outputs"][0].update(dtype="bfloat16")), "expected one of bool"),
    "negative size": (_component("head", lambda c: c["outputs"][0].update(shape=["batch", 5, -2])), "negative"),
    "unknown output size": (
        _component("head", lambda c: c["outputs"][0].update(shape=["batch", 5, "z"])),
        "dimension z",
    ),
    "two sizes for one symbol": (_step("query", lambda s: s["inputs"].update(queries="keys2")), "reads keys2"),
    "carry of nothing": (_step("block", lambda s: s.update(carry={"y": "latents"})), "carried graph output y unknown"),
    "carry to nothing": (
        _step("block", lambda s: s.update(carry={"latents_out": "y"})),
        "carry's graph input y unknown",
    ),
    "carry of another shape": (
        _step("fold", lambda s: s.update(carry={"scaled": "total"}, chunk=None)),
        "unequal shape",
    ),
    "repeat nothing": (_step("block", lambda s: s.update(repeat=0)), "repeat 0"),
    "repeat without carry": (_step("block", lambda s: s.update(carry={})), "with a carry"),
    "repeat of chunks": (_step("fold", lambda s: s.update(repeat=2)), "without a chunk"),
    "chunk of nothing": (_step("query", lambda s: s.update(chunk={"dimension": "q", "size": 0})), "chunk of 0"),
    "chunk elsewhere": (_step("query", lambda s: s.update(chunk={"dimension": "z", "size": 2})), "'z', which no graph"),
    "first piece of all": (
        _step("query", lambda s: s["chunk"].update(only_first=True)),
        "only the first chunk is run, but answers",
    ),
    "chunk of the carried": (
        _step("fold", lambda s: s.update(chunk={"dimension": "b", "size": 2})),
        "carried total_out",
    ),
    "chunk dimension twice": (
        _component("query", lambda c: c["outputs"][0].update(shape=["batch", "q", "q"])),
        r"answers: float32\[batch, q, q\] has the chunk dimension twice",
    ),
    "encode after decode": (_step("encoder", lambda s: s.update(stage="decode")), "encode step follows"),
    "decode overwrites": (_step("head", lambda s: s["outputs"].update(logits="total")), "writes total"),
    "output of nobody": (_pipeline(lambda p: p["outputs"][0].update(name="z")), "made by no step"),
    "output of another shape": (_pipeline(lambda p: p["outputs"][0].update(shape=["batch", 5, 3])), "declared as"),
    "output twice": (_pipeline(lambda p: p["outputs"].append(p["outputs"][0])), "output logits occurs twice"),
    "alias of nobody": (_pipeline(lambda p: p["aliases"].update(z="logits")), "alias of z, which is no output"),
    "alias that nobody makes": (_pipeline(lambda p: p["aliases"].update(logits="z")), "logits is made by no step"),
    "alias of an input": (_pipeline(lambda p: p["aliases"].update(logits="x")), "logits is made by no step"),
    "alias with another value's name": (
        _pipeline(lambda p: (p["outputs"][0].update(name="total"), p["aliases"].update(total="logits"))),
        "total shows logits, but another value has its name",
    ),
    "alias of another shape": (
        _pipeline(lambda p: p["aliases"].update(x="answers") or p["outputs"][0].update(name="x")),
        "declared as",
    ),
    "value shown twice": (
        _pipeline(lambda p: (p["outputs"].append({**p["outputs"][0], "name": "x"}), p["aliases"].update(x="logits"))),
        "value behind an output logits occurs twice",
    ),
    "default for nobody": (_pipeline(lambda p: p["defaults"].update(z=0.0)), "default for z"),
    "input twice": (_pipeline(lambda p: p["inputs"].append(p["inputs"][0])), "input x occurs twice"),
    "component twice": (lambda m: m["components"].append(m["components"][0]), "component encoder occurs twice"),
    "no profile": (lambda m: m.update(profiles=[]), "no profile"),
    "symbol without range": (lambda m: m["profiles"][0]["dimensions"].pop("keys"), "no range for keys"),
    "empty range": (lambda m: m["profiles"][0]["dimensions"]["keys"].update(max=0), "min <= opt <= max"),
    "name with a slash": (_component("head", lambda c: c.update(name="a/b")), "expected letters"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_misfit_is_named(copy: Path, case: str) -> None:
    edit, message = MISFITS[case]
    change(copy, edit)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


def test_decode_may_not_overwrite_encoded(copy: Path) -> None:
    """`latents` are read by `head` first and written by a second block in the decode stage."""

    def add(m: dict[str, Any]) -> None:
        block = dict(m["pipeline"]["steps"][3], stage="decode")
        m["pipeline"]["steps"].append(block)

    with pytest.raises(BundleError, match="overwrites encoded latents"):
        load_bundle(change(copy, add))
