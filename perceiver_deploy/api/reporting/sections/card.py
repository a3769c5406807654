"""The model card: where a model comes from, what it takes and gives, and the data that it was exported with."""

from __future__ import annotations

from collections.abc import Iterator

from perceiver_deploy.api.reporting.data import ModelReport
from perceiver_deploy.api.reporting.sections.section import Section, Text
from perceiver_deploy.api.reporting.tables import Cell, table
from perceiver_runtime.cli.report import amount, weights
from perceiver_runtime.tensors import TensorSpec

RANDOM = "The weights are random: this report is about speed and parity, the answers mean nothing."
KINDS = ("image", "text", "flow", "clip")


def card(model: ModelReport) -> Section:
    """What the manifest of the first bundle says of its model."""
    source = model.source
    facts = [(Cell(name), Cell(value, sub)) for name, value, sub in _facts(model)]
    warning = () if source.pretrained else (Text(RANDOM, missing=True),)
    return Section(
        "card", "Model card", "Source, weights, data and processing.", (*warning, table((":<", ":<"), facts)),
        model.commands["card"],
    )  # fmt: skip


def _facts(model: ModelReport) -> Iterator[tuple[str, str, str]]:
    source, first = model.source, model.bundles[0]
    yield "Source", f"{source.name}, {source.family}", f"{weights(source.pretrained)} weights"
    yield "Weights", "SHA-256", source.weights_sha256
    flops = _flops(model)
    yield "Parameters", f"{model.parameters:,}", f"{amount(flops)}FLOP per run at the typical sizes"
    for kind, specs in (("Input", model.pipeline.inputs), ("Output", model.pipeline.outputs)):
        for spec in specs:
            yield kind, f"{spec.name}", f"{spec.dtype} {shape(spec)}"
    for profile in model.profiles:
        if sizes := ", ".join(f"{s} {r.min} to {r.max} (typically {r.opt})" for s, r in profile.dimensions.items()):
            yield "Sizes", sizes, f"profile {profile.name}"
    if model.labels:
        shown = ", ".join(model.labels[:12]) + (", …" if len(model.labels) > 12 else "")
        yield "Classes", f"{len(model.labels):,}", shown
    yield "Golden samples", model.golden_origin, ""
    yield from _data(model)
    yield "Processing", *_processing(model)
    yield "Made with", ", ".join(f"{name} {version}" for name, version in first.tools.items()), f"opset {first.opset}"


def _flops(model: ModelReport) -> int:
    calls = {component.name: component.flops for component in model.bundles[0].components}
    return sum(calls[step.component] * step.repeat for step in model.pipeline.steps)


def _data(model: ModelReport) -> Iterator[tuple[str, str, str]]:
    if (data := model.data) is None:
        yield "Data", "none of the user's", "inputs were random, or the package's own"
        return
    uses = {"calibration": data.calibration, "golden": data.golden, "evaluation": data.evaluation}
    counts = ", ".join(f"{use} {each.samples:,}" for use, each in uses.items())
    yield "Data", f"{data.name}: {data.samples:,} samples", f"{counts}; drawn with seed {data.seed}"


def _processing(model: ModelReport) -> tuple[str, str]:
    processing = model.processing
    if processing is None:
        return "not stated", "inputs are arrays"
    if processing.refusal:
        return "inputs are arrays", processing.refusal
    kinds = [kind for kind in KINDS if getattr(processing, kind) is not None]
    return ", ".join(kinds) or "not stated", processing.origin and f"settings: {processing.origin}"


def shape(spec: TensorSpec) -> str:
    """The shape as text."""
    return f"({', '.join(map(str, spec.shape))})"
