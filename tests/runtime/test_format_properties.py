"""Records and tensors of random content: what is written is what is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load as load_by_package
from safetensors.numpy import save

from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.safetensors import DTYPES, parse

FAST = settings(max_examples=60, derandomize=True, deadline=None, database=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = TEXT.filter(lambda name: name != "__metadata__")
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@dataclass(frozen=True)
class Leaf:
    size: int
    share: float
    kind: Literal["encode", "decode"]
    note: str | None = None


@dataclass(frozen=True)
class Tree:
    name: str
    shown: bool
    shape: tuple[int | str, ...]
    leaves: tuple[Leaf, ...]
    by_name: dict[str, Leaf] = field(default_factory=dict)
    best: Leaf | None = None


LEAVES = st.builds(Leaf, st.integers(), NUMBER, st.sampled_from(["encode", "decode"]), st.none() | TEXT)
TREES = st.builds(
    Tree,
    TEXT,
    st.booleans(),
    st.lists(st.integers() | TEXT, max_size=4).map(tuple),
    st.lists(LEAVES, max_size=3).map(tuple),
    st.dictionaries(TEXT, LEAVES, max_size=3),
    st.none() | LEAVES,
)
TENSORS = arrays.arrays(
    dtype=st.sampled_from(sorted(DTYPES.values())).map(np.dtype),
    shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@FAST
@given(TREES)
def test_records_round_trip(tree: Tree) -> None:
    text = strict_json.dumps(schema.encode(tree))
    assert schema.decode(Tree, strict_json.loads(text)) == tree


@FAST
@given(st.dictionaries(NAMES, TENSORS, max_size=4), st.dictionaries(TEXT, TEXT, max_size=3))
def test_tensors_are_read_as_the_safetensors_package_reads_them(
    tensors: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    content = save(tensors, metadata or None)  # safetensors 0.8 writes an empty object of metadata as no JSON
    read, described = parse(content, Path("random.safetensors"))
    expected = load_by_package(content)
    assert described == metadata
    assert set(read) == set(expected) == set(tensors)
    for name, array in read.items():
        assert array.dtype == expected[name].dtype == tensors[name].dtype
        assert array.shape == tensors[name].shape
        assert array.tobytes() == expected[name].tobytes() == tensors[name].tobytes()


@FAST
@given(st.binary(max_size=64))
def test_json_is_read_strictly_or_refused(content: bytes) -> None:
    """Nothing but ValueError, whatever the bytes."""
    try:
        value = strict_json.loads(content)
    except ValueError:
        return
    assert strict_json.loads(strict_json.dumps(value)) == value
