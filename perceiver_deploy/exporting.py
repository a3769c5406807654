"""`export`: a model or checkpoint becomes a bundle; `plan`: what that would do, without doing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.budget import accuracy_budget
from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.loaded import DEFAULT
from perceiver_deploy.source import Model, blueprint, resolve
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.memory import fit, forecast
from perceiver_exporters.precision.options import DEFAULTS, Budget, QuantizationOptions
from perceiver_exporters.targets import TARGETS, require
from perceiver_runtime.errors import UsageError
from perceiver_runtime.manifest import Manifest


@dataclass(frozen=True)
class PlannedComponent:
    """One graph that an export would write. `repeat` is how often the pipeline runs it."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int
    repeat: int


@dataclass(frozen=True)
class ExportPlan:
    """What `export` would do. Nothing has been traced or written."""

    source: str
    family: str
    pretrained: bool
    destination: str
    precision: str
    target: str
    calibration_batches: int
    components: tuple[PlannedComponent, ...]
    memory: str


def export(
    source: str,
    out: str | Path,
    *,
    precision: str = "fp32",
    target: str = "cpu",
    overwrite: bool = False,
    max_memory: int | None = None,
    options: LoadOptions = DEFAULT,
    quantization: QuantizationOptions = DEFAULTS,
    max_accuracy_drop: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export `source` (a zoo name, a checkpoint directory or a hub id) as a bundle at `out`.

    `max_memory` bounds the bytes that a session is expected to need at the profile's `opt` sizes: it sets the sizes
    of the chunks in which long inputs are read and long outputs made (None: the family's own sizes). `options` say
    which revision of a hub id, where it is cached, and whether it may be downloaded. `quantization` says how int8 is
    calibrated, and how many bits the weights of int8 and int8-dynamic have; `max_accuracy_drop`, in points, has the
    fewest layers left in FP32 that keep the accuracy on the model's data within it. The bundle appears whole or not at
    all. Raises UsageError (unknown names, existing destination, int8 without calibration data, an option that the
    precision or target does not have, no chunks that are small enough), CheckpointError, UnavailableError (a hub id
    that can't be fetched), CheckError (the graph does not hold the asked precision, or the accuracy can't be held).
    """
    quantization.require(*require(TARGETS, target, precision))
    progress(f"load {source}")
    model = resolve(source, options)
    made = _bounded(blueprint(model), max_memory)
    progress(f"memory: {forecast(made.cut)}")
    if max_accuracy_drop is not None:
        quantization = dataclasses.replace(quantization, budget=_budget(model, max_accuracy_drop))
    return export_bundle(
        made, Path(out), precision, target, overwrite=overwrite, progress=progress, quantization=quantization
    )


def plan(
    source: str,
    out: str | Path,
    *,
    precision: str = "fp32",
    target: str = "cpu",
    max_memory: int | None = None,
    options: LoadOptions = DEFAULT,
    quantization: QuantizationOptions = DEFAULTS,
) -> ExportPlan:
    """Say what `export` with the same arguments would write. Raises the same usage errors."""
    quantization.require(*require(TARGETS, target, precision))
    made = _bounded(blueprint(resolve(source, options)), max_memory)
    repeats = {step.component: step.repeat for step in made.cut.pipeline.steps}
    components = tuple(
        PlannedComponent(
            c.name,
            tuple(map(str, c.inputs)),
            tuple(map(str, c.outputs)),
            sum(p.numel() for p in c.module.parameters()),
            repeats[c.name],
        )
        for c in made.cut.components
    )
    return ExportPlan(
        source,
        made.source.family,
        made.source.pretrained,
        str(out),
        precision,
        target,
        len(made.calibration),
        components,
        str(forecast(made.cut)),
    )


def _bounded(blueprint: Blueprint, max_memory: int | None) -> Blueprint:
    if max_memory is None:
        return blueprint
    return dataclasses.replace(blueprint, cut=fit(blueprint.cut, max_memory))


def _budget(model: Model, points: float) -> Budget:
    if model.dataset is None:
        raise UsageError(
            f"accuracy budget: {model.name} has no data set to measure its accuracy on; give the model one"
        )
    return accuracy_budget(model.dataset, points)
