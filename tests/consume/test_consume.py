"""docs/consume.md: the schema is the reader's, and the consumer gives what a session gives."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import tiny_bundles
from environments import ROOT

from perceiver_runtime import open_session

DOCS = ROOT / "docs"
SCHEMA = json.loads((DOCS / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A default input, a repeated block, chunks with a carried sum, chunked outputs."""
    return tiny_bundles.write(tmp_path_factory.mktemp("tiny") / "b", tiny_bundles.full_model(), tiny_bundles.feeds())


def _manifest(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


def test_the_schema_is_a_schema_and_of_the_dataclasses() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    found = importlib.util.spec_from_file_location("manifest_schema", DOCS / "manifest_schema.py")
    assert found is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert module.manifest_schema() == SCHEMA, "run: python docs/manifest_schema.py"
    assert "symbolic" in SCHEMA["$defs"]["TensorSpec"]["properties"]["shape"]["description"]


def test_manifests_are_valid(tiny: Path) -> None:
    VALIDATOR.validate(_manifest(tiny))


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.pop("pipeline"),
        lambda m: m.update(metrics_="?"),
        lambda m: m.update(schema_version=2),
        lambda m: m["components"][0].update(flops="many"),
        lambda m: m["pipeline"]["steps"][0].update(stage="both"),
        lambda m: m["components"][0]["inputs"][0].update(shape=[1.5]),
    ],
)
def test_what_the_reader_refuses_is_not_valid(tiny: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    manifest = _manifest(tiny)
    damage(manifest)
    assert not VALIDATOR.is_valid(manifest)


def test_a_retired_field_is_valid(tiny: Path) -> None:
    VALIDATOR.validate({**_manifest(tiny), "metrics": {}})


def _consumer() -> Callable[..., dict[str, Any]]:
    code = re.search(r"^```python\n(.*?)^```", (DOCS / "consume.md").read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert code is not None
    assert code[1].count("\n") < 50
    names: dict[str, Any] = {}
    exec(code[1], names)
    return names["run"]


@pytest.mark.parametrize("keys", [2, 3, 7], ids="keys={}".format)
def test_the_consumer_gives_what_a_session_gives(tiny: Path, keys: int) -> None:
    feeds = tiny_bundles.feeds(batch=2, keys=keys, queries=6)
    _compare(tiny, feeds)


def test_only_first_chunks_and_aliases(tmp_path: Path) -> None:
    """A step that needs its first chunk alone, and an output that is named differently from its value."""
    model = tiny_bundles.with_steps(
        tiny_bundles.full_model(), fold={"outputs": {"total_out": "total"}, "chunk": tiny_bundles.Chunk("n", 3, True)}
    )
    kept = tuple(spec for spec in model.pipeline.outputs if spec.name != "scaled_keys")
    renamed = tuple(tiny_bundles.TensorSpec("scores" if s.name == "logits" else s.name, s.dtype, s.shape) for s in kept)
    pipeline = tiny_bundles.replace(model.pipeline, outputs=renamed, aliases={"scores": "logits"})
    parts = tuple(
        tiny_bundles.replace(part, outputs=part.outputs[:1], nodes=part.nodes) if part.name == "fold" else part
        for part in model.parts
    )
    model = tiny_bundles.replace(model, pipeline=pipeline, parts=parts)
    _compare(tiny_bundles.write(tmp_path / "b", model, tiny_bundles.feeds()), tiny_bundles.feeds(keys=8))


def _compare(bundle: Path, feeds: dict[str, Any]) -> None:
    with open_session(bundle) as session:
        expected = session.run(feeds)
    found = _consumer()(bundle, feeds)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)
