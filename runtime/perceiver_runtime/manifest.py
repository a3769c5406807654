"""The manifest: what a bundle holds, in frozen data. `manifest.json` is its JSON form (see `schema`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perceiver_runtime.pipeline import Pipeline
from perceiver_runtime.tensors import Profile, TensorSpec

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
PIECE_BYTES = 1 << 25


@dataclass(frozen=True)
class Source:
    """Where the weights came from. `weights_sha256` is over the reference model's tensors, sorted by name."""

    name: str
    family: str
    weights_sha256: str
    config: Mapping[str, Any]
    pretrained: bool


@dataclass(frozen=True)
class ComponentEntry:
    """One graph of the bundle. `onnx` is its path in the bundle; `flops` counts 2 x MAC at the profile's `opt`.

    `precision` is the type that its matrix products have in the graph.
    """

    name: str
    onnx: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str
    parameters: int
    flops: int


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of one file, checked before any parser sees it.

    A large file also has the SHA-256 of each `PIECE_BYTES` of it, so that all cores can check it at once.
    """

    sha256: str
    size: int
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Derivation:
    """Where a tolerance comes from: `method` gave its noise, the largest over `samples` inputs with that SHA-256.

    The inputs are a component's golden inputs, or the session's feeds. `rel_l2` is max(`margin` x noise, `floor`), and
    `centred` is max(`margin` x centred noise, `centred_floor`); see `tolerances`. A `centred_floor` of 0 says that the
    golden rows do not vary, None that nobody looked.
    """

    method: str
    inputs_sha256: str
    samples: int
    margin: float
    floor: float
    centred_floor: float | None = None


@dataclass(frozen=True)
class Tolerance:
    """How far one output of one component may be from the reference, and why.

    `tensor` is a graph output (teacher-forced: the component is fed reference inputs) or, where `component`
    is `"pipeline"`, a session output (chained: the pipeline feeds itself). `noise` is the relative L2 error
    that the reference itself makes in this precision; `rel_l2` is `noise` times a fixed margin, never below
    the floor of the precision's arithmetic. `centred` and `centred_noise` are the same relative to the spread of the
    golden rows (see `spread`); `centred` is None where rows do not vary, or no more than the precision loses.
    `provenance` says in a sentence what `derivation` says in numbers.
    """

    component: str
    tensor: str
    rel_l2: float
    noise: float
    provenance: str
    derivation: Derivation | None = None
    centred: float | None = None
    centred_noise: float = 0.0


@dataclass(frozen=True)
class Manifest:
    """Description of one bundle: one model at one precision for one target.

    `golden_origin` says where the golden inputs came from; empty in bundles that did not record it.
    """

    schema_version: int
    source: Source
    precision: str
    target: str
    opset: int
    components: tuple[ComponentEntry, ...]
    pipeline: Pipeline
    profiles: tuple[Profile, ...]
    tolerances: tuple[Tolerance, ...]
    golden: tuple[str, ...]
    tools: Mapping[str, str]
    files: Mapping[str, FileEntry]
    labels: tuple[str, ...] = ()
    golden_origin: str = ""

    def component(self, name: str) -> ComponentEntry:
        """The component of that name. Raises KeyError."""
        for entry in self.components:
            if entry.name == name:
                return entry
        raise KeyError(name)
