"""The manifest: the description of a bundle as frozen data, stored as `manifest.json` (see `format.schema`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perceiver_runtime.pipeline import Pipeline
from perceiver_runtime.settings import Processing
from perceiver_runtime.tensors import Profile, TensorSpec

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
PIECE_BYTES = 1 << 25


@dataclass(frozen=True)
class Source:
    """Origin of the weights. `weights_sha256` covers the tensors of the reference model, sorted by name."""

    name: str
    family: str
    weights_sha256: str
    config: Mapping[str, Any]
    pretrained: bool


@dataclass(frozen=True)
class ComponentEntry:
    """One component of the bundle.

    Attributes:
        name: Name of the component.
        onnx: Path of its graph in the bundle.
        inputs: Graph inputs.
        outputs: Graph outputs.
        precision: Precision of its matrix products.
        parameters: Number of parameters.
        flops: Floating-point operations of one call (2 for each multiply-accumulate) at the profile's `opt` sizes.
        recurrent_flops: Those of recurrent layers among them, whose positions are computed one after another. 0 in
            bundles of earlier versions, whose `flops` do not have them.
    """

    name: str
    onnx: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str
    parameters: int
    flops: int
    recurrent_flops: int = 0


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of one file, checked before the file is parsed.

    A file of more than `PIECE_BYTES` also has the SHA-256 of each range of that size, so that all cores can check it.
    """

    sha256: str
    size: int
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Derivation:
    """How a tolerance was derived.

    Attributes:
        method: Emulation that gave the noise.
        inputs_sha256: Hash of the inputs: golden inputs of the component, or feeds of the session.
        samples: Number of inputs; the noise is the largest over them.
        margin: Factor: `rel_l2` is max(margin x noise, floor).
        floor: Smallest tolerance of the precision.
        centred_floor: `centred` is max(margin x centred noise, centred_floor). 0: golden rows do not vary; None: not
            known.
    """

    method: str
    inputs_sha256: str
    samples: int
    margin: float
    floor: float
    centred_floor: float | None = None


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed error of one output of a component or of the pipeline.

    Attributes:
        component: Component, or `"pipeline"`.
        tensor: Graph output (teacher-forced: the component gets reference inputs) or session output (chained: the
            pipeline feeds itself).
        rel_l2: Largest relative L2 error: a fixed margin times `noise`, at least the floor of the precision.
        noise: Relative L2 error of the reference itself in this precision.
        provenance: The derivation as a sentence, for the model card.
        derivation: The derivation in numbers.
        centred: Largest error relative to the spread of the golden rows (see `measure.spread`). None: rows do not vary,
            or no more than the precision loses.
        centred_noise: Noise relative to that spread.
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
class SampleSet:
    """Number of samples of one use, and the SHA-256 of their contents in order."""

    samples: int
    sha256: str


@dataclass(frozen=True)
class DataRecord:
    """The data that a bundle was made with. No sample has two uses.

    Attributes:
        name: Name of the source: a file, a directory, or `file.py:function`.
        samples: Number of its samples.
        seed: Of the draw of the samples of each use.
        calibration: Samples whose activations give the ranges of int8.
        golden: Samples that are stored in the bundle.
        evaluation: Samples that metrics are measured on.
        code_sha256: Hash of the file of `file.py:function`; empty for other sources.
    """

    name: str
    samples: int
    seed: int
    calibration: SampleSet
    golden: SampleSet
    evaluation: SampleSet
    code_sha256: str = ""


@dataclass(frozen=True)
class Manifest:
    """Description of one bundle: one model at one precision for one target.

    `golden_origin` names the source of the golden inputs; it is empty if that was not recorded. `processing` says how
    images, texts and the like become inputs; None in bundles that state nothing. `data` is None where the inputs were
    random, or the package's own. `digest` is the bundle's (see `format.digest`); it is set when the manifest is written
    or read.
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
    processing: Processing | None = None
    data: DataRecord | None = None
    digest: str = ""

    def component(self, name: str) -> ComponentEntry:
        """The component of that name. Raises KeyError."""
        for entry in self.components:
            if entry.name == name:
                return entry
        raise KeyError(name)
