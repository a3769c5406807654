"""The model card: README.md of a bundle, with its interface, how to run it, tolerances and precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from perceiver_exporters.precision.placement.pareto import load_pareto
from perceiver_exporters.precision.placement.search import Pareto
from perceiver_exporters.precision.record import PATH as REPORT
from perceiver_exporters.precision.record import ComponentPrecision, load_record
from perceiver_runtime.execution.choice import WITHOUT_ENGINES
from perceiver_runtime.manifest import ComponentEntry, Manifest
from perceiver_runtime.measure.parity import golden_origin
from perceiver_runtime.measure.tolerances import is_indistinct, varies
from perceiver_runtime.tensors import TensorSpec

PROCESSED = {
    "image": "photo.jpg",
    "text": "--text 'a text'",
    "flow": "frame1.png frame2.png",
    "clip": "frame*.png --audio sound.wav",
}
"""What processing is made for, with arguments of `perceiver-run predict`."""
_RANDOM = "**The weights are random: this bundle shows speed and parity, its answers mean nothing.**"
_SHARED_RANGES = (
    "Ranges of activations are taken at run time, over all rows of a batch together: what a row gets depends on its "
    "neighbours. ONNX Runtime on a processor computes it, and no other backend does."
)


def write_model_card(manifest: Manifest, directory: Path) -> Path:
    """Write README.md and return its path."""
    path = directory / "README.md"
    report = load_record(directory / REPORT) if (directory / REPORT).exists() else ()
    path.write_text(render(manifest, report, load_pareto(directory)), encoding="utf-8")
    return path


def render(manifest: Manifest, report: Sequence[ComponentPrecision] = (), pareto: Pareto | None = None) -> str:
    """The model card as Markdown."""
    source = manifest.source
    sections = (
        f"# {source.name}, {manifest.precision}",
        f"A Perceiver ({source.family}) in {manifest.precision} for `{manifest.target}`, one ONNX graph per component.",
        *(() if source.pretrained else (_RANDOM,)),
        *((_SHARED_RANGES,) if manifest.precision == "int8-dynamic" else ()),
        _usage(manifest),
        "## Inputs and outputs",
        _table(("", "Tensor", "Type", "Shape"), _tensor_rows(manifest)),
        _ranges(manifest),
        "## Components",
        _table(("Component", "Runs", "Parameters", "MFLOP a run", "Precision"), _component_rows(manifest)),
        *(_precision(report, manifest.precision) if report else ()),
        "## Parity",
        "`perceiver-run verify` holds this device to these bounds, on the golden samples inside the bundle. A bound is "
        "the reference's own error in this precision times a constant margin; nothing loosens it. Centred errors are "
        "relative to how a tensor varies over the golden rows: 1 is a constant's.",
        f"Golden samples: {golden_origin(manifest)}.",
        _table(
            ("Component", "Tensor", "Noise (relative L2)", "Tolerance", "Centred noise", "Centred tolerance"),
            _tolerance_rows(manifest),
        ),
        *_indistinct(manifest),
        f"Derived from: {manifest.tolerances[0].provenance}." if manifest.tolerances else "No golden samples.",
        *_processing(manifest),
        *_data(manifest),
        *_accuracy(pareto),
        "## Provenance",
        f"Weights SHA-256 `{source.weights_sha256}`; ONNX opset {manifest.opset}. Made with "
        + ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
        + ". `manifest.json` lists every file's hash.",
    )
    return "\n\n".join(sections) + "\n"


def _processing(manifest: Manifest) -> Iterator[str]:
    """What becomes an input, and the command that does it."""
    processing = manifest.processing
    if processing is None:
        return
    yield "## Processing"
    if processing.refusal:
        yield f"Inputs must be given as arrays: {processing.refusal}."
        return
    kinds = [name for name in PROCESSED if getattr(processing, name) is not None]
    origin = f" Settings: {processing.origin}." if processing.origin else ""
    files = " ".join(PROCESSED[name] for name in kinds)
    yield f"`perceiver-run predict . {files}` makes the inputs and prints labelled answers.{origin}"


def _data(manifest: Manifest) -> Iterator[str]:
    data = manifest.data
    if data is None:
        return
    yield "## Data"
    yield f"`{data.name}`: {data.samples:,} samples, drawn for each use with seed {data.seed}; no sample has two uses."
    uses = {"Golden samples": data.golden, "Calibration": data.calibration, "Evaluation": data.evaluation}
    rows: list[tuple[str, ...]] = [(u, f"{each.samples:,}", f"`{each.sha256}`") for u, each in uses.items()]
    yield _table(("Use", "Samples", "SHA-256 of their contents"), rows)


def _accuracy(pareto: Pareto | None) -> Iterator[str]:
    """The scores that a placement search was bound by."""
    if pareto is None or not pareto.reference:
        return
    chosen = next(point for point in pareto.points if point.kept == pareto.chosen)
    yield "## Accuracy"
    yield (
        f"At most {pareto.budget:g} points of a score may be lost: {pareto.chosen} of {len(pareto.order)} layers stay "
        "in FP32. Scores are accuracies, or shares of pixels whose flow is right, on the evaluation samples."
    )
    rows: list[tuple[str, ...]] = [
        (f"`{name}`", f"{exact:.4f}", f"{exact - chosen.lost[name] / 100:.4f}", f"{chosen.lost[name]:.2f}")
        for name, exact in pareto.reference.items()
    ]
    yield _table(("Output", "Reference", "This bundle", "Points lost"), rows)


def _usage(manifest: Manifest) -> str:
    feeds = ", ".join(f'"{spec.name}": {spec.name}' for spec in manifest.pipeline.inputs)
    first = manifest.pipeline.outputs[0].name
    return f"""## Run it

```
perceiver-run inspect .
perceiver-run verify .
perceiver-run bench .
```

```python
from perceiver_runtime import open_session

with open_session("path/to/this/bundle") as session:
    {first} = session.run({{{feeds}}})["{first}"]
```

`session.runs_on` says what runs it: {_backend(manifest)}"""


def _backend(manifest: Manifest) -> str:
    """The backend that `auto` selects for this bundle."""
    if manifest.target in WITHOUT_ENGINES:
        return "ONNX Runtime on the processor, or what a tuning found to be faster, unless another backend is named."
    return (
        f"TensorRT engines for this device once `perceiver-export build --target {manifest.target}` or `perceiver-run "
        "build` has added them; until then ONNX Runtime on the processor."
    )


def _tensor_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    pipeline = manifest.pipeline
    named = [("input", spec) for spec in pipeline.inputs] + [("output", spec) for spec in pipeline.outputs]
    return [(_role(manifest, role, spec), f"`{spec.name}`", spec.dtype, _shape(spec)) for role, spec in named]


def _role(manifest: Manifest, role: str, spec: TensorSpec) -> str:
    allowed = f", {spec.range}" if spec.range else ""
    defaults = manifest.pipeline.defaults
    return f"{role}{allowed}" + (f", default {defaults[spec.name]:g}" if spec.name in defaults else "")


def _ranges(manifest: Manifest) -> str:
    dimensions = manifest.profiles[0].dimensions if manifest.profiles else {}
    return "\n".join(f"- `{symbol}`: {r.min} to {r.max}, typically {r.opt}" for symbol, r in dimensions.items())


def _component_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    return [
        (f"`{c.name}`", _runs(manifest, c), f"{c.parameters:,}", f"{c.flops / 1e6:,.1f}", c.precision)
        for c in manifest.components
    ]


def _runs(manifest: Manifest, component: ComponentEntry) -> str:
    steps = [step for step in manifest.pipeline.steps if step.component == component.name]
    return ", ".join(
        f"per {s.chunk.size} {s.chunk.dimension}" if s.chunk and not s.chunk.only_first else str(s.repeat)
        for s in steps
    )


def _precision(report: Sequence[ComponentPrecision], precision: str) -> Iterator[str]:
    yield "## Precision"
    yield "Shares of the FLOPs of matrix products: with a weight, all, and by the kernels that ONNX Runtime runs."
    rows: list[tuple[str, ...]] = [
        (
            f"`{entry.component}`",
            f"{entry.weighted:.1%}",
            f"{entry.overall:.1%}",
            entry.run_in(precision) or "-",
            entry.ranges or "-",
            ", ".join(f"`{layer}`" for layer in entry.kept) or "-",
        )
        for entry in report
    ]
    yield _table(("Component", "Weighted", "All", "Kernels", "Calibration", "Layers kept in FP32"), rows)
    if findings := [str(finding) for entry in report for finding in entry.findings]:
        yield "\n".join(f"- {finding}" for finding in findings)


def _tolerance_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    return [
        (
            f"`{t.component}`",
            f"`{t.tensor}`",
            f"{t.noise:.2e}",
            f"{t.rel_l2:.2e}",
            f"{t.centred_noise:.2e}" if varies(t) else "-",
            "-" if t.centred is None else f"{t.centred:.2e}",
        )
        for t in manifest.tolerances
    ]


def _indistinct(manifest: Manifest) -> Iterator[str]:
    if found := [f"`{t.tensor}` of `{t.component}`" for t in manifest.tolerances if is_indistinct(t)]:
        yield (
            f"Golden rows differ by less than {manifest.precision} may lose in {', '.join(found)}: nothing shows there "
            "that the answer follows the input."
        )


def _shape(spec: TensorSpec) -> str:
    return f"({', '.join(map(str, spec.shape))})"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = (header, tuple("---" for _ in header), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
