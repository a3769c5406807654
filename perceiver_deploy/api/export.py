"""`export`: a model or checkpoint becomes a bundle. `dry_run`: what an export would do."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from perceiver_deploy.api.budget import BATCH as BUDGET_BATCH
from perceiver_deploy.api.budget import accuracy_budget
from perceiver_deploy.api.options import ExportOptions, ExportSettings, export_options
from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.loaded import DEFAULT, option
from perceiver_deploy.data.draw import dataset_of
from perceiver_deploy.data.open import open_data
from perceiver_deploy.datasets.dataset import fixed_batch
from perceiver_deploy.sources.folding import folded
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.origin import find
from perceiver_deploy.sources.source import blueprint, load
from perceiver_deploy.sources.source_record import write_record
from perceiver_exporters.component import Blueprint, Cut
from perceiver_exporters.dynamic_sizes import with_ranges
from perceiver_exporters.export import Exporter
from perceiver_exporters.memory.estimate import estimate, fit
from perceiver_exporters.memory.liveness import counted_flops
from perceiver_exporters.precision import require
from perceiver_exporters.precision.options import Budget
from perceiver_exporters.preprocessing import Frames
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.ranges import BATCH, batch_within
from perceiver_runtime.format.staging import check_destination
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.progress import report
from perceiver_runtime.tensors import Profile, Range

if TYPE_CHECKING:
    from typing_extensions import Unpack

Source = str | Path | nn.Module | Blueprint
"""What a user may name or give."""
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class DryRunComponent:
    """One graph that an export would write.

    Attributes:
        name: Name of the component.
        inputs: Specs of its inputs.
        outputs: Specs of its outputs.
        parameters: Number of parameters.
        repeat: How often the pipeline runs it.
        stage: `encode` or `decode`.
        shared: Parameters that an earlier component has too; a bundle stores them once.
        flops: Floating-point operations of one call at the profile's typical sizes, as PyTorch counts them.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int
    repeat: int
    stage: str
    shared: int
    flops: int


@dataclass(frozen=True)
class DryRun:
    """What `export` would do. Nothing has been traced or written."""

    source: str
    family: str
    pretrained: bool
    destination: str
    precision: str
    target: str
    calibration_batches: int
    components: tuple[DryRunComponent, ...]
    memory: str
    ranges: Mapping[str, Range]


def export(
    source: Source,
    out: str | Path,
    *,
    overwrite: bool = False,
    options: LoadOptions = DEFAULT,
    **settings: Unpack[ExportSettings],
) -> Manifest:
    """Export a model as a bundle, which appears at `out` whole or not at all.

    Where the source was found is recorded beside the bundle. Assumptions (random weights, a size that nothing states)
    are logged as warnings.

    Args:
        source: Name of a model of the zoo, a checkpoint directory, a hub id, code that makes a module
            (`my_model.py:make`), or the module itself; a module needs `inputs`, or data.
        out: Directory of the bundle.
        overwrite: Replace a bundle at `out` once the new one is complete.
        options: An `ExportOptions`, or a `LoadOptions` alone.
        **settings: Fields of `ExportOptions`, which go before `options`: `precision="int8"`, `target="rtx"`.

    Returns:
        The manifest of the bundle.

    Raises:
        UsageError: Unknown names, an existing destination, int8 without calibration data, an option that the precision,
            target or source has no use for, no chunks that are small enough.
        CheckpointError: The checkpoint does not fit its config, or no format recognises it.
        UnavailableError: A hub id can't be fetched.
        DatasetError: The data do not fit the model, or are fewer than asked for.
        CheckError: A graph is not in the asked precision, or the accuracy can't be kept.
    """
    chosen = export_options(options, settings)
    model, exporter = _checked(source, Path(out), chosen, overwrite)
    report(f"memory: {estimate(exporter.cut)}")
    manifest = exporter.export(Path(out), overwrite=overwrite)
    _record(Path(out), manifest, model, chosen)
    return manifest


def dry_run(
    source: Source,
    out: str | Path,
    *,
    overwrite: bool = False,
    options: LoadOptions = DEFAULT,
    **settings: Unpack[ExportSettings],
) -> DryRun:
    """Tell what `export` with the same arguments would write, after the same checks.

    Args:
        source: As for `export`.
        out: As for `export`.
        overwrite: As for `export`.
        options: As for `export`.
        **settings: As for `export`.

    Returns:
        The components, the sizes, and the memory that a session would need.

    Raises:
        UsageError: As `export` does.
        CheckpointError: As `export` does.
        UnavailableError: As `export` does.
    """
    chosen = export_options(options, settings)
    made = _checked(source, Path(out), chosen, overwrite)[1].blueprint
    return DryRun(
        str(source),
        made.source.family,
        made.source.pretrained,
        str(out),
        chosen.precision,
        chosen.target,
        len(made.calibration),
        tuple(_components(made.cut)),
        str(estimate(made.cut)),
        made.cut.profile.dimensions,
    )


def _components(cut: Cut) -> Iterator[DryRunComponent]:
    steps = {step.component: step for step in cut.pipeline.steps}
    seen: set[int] = set()
    for component in cut.components:
        parameters = {p.data_ptr(): p.numel() for p in component.module.parameters()}
        yield DryRunComponent(
            component.name,
            tuple(map(str, component.inputs)),
            tuple(map(str, component.outputs)),
            sum(parameters.values()),
            steps[component.name].repeat,
            steps[component.name].stage,
            sum(size for place, size in parameters.items() if place in seen),
            counted_flops(component, cut.profile),
        )
        seen |= set(parameters)


def _checked(source: Source, out: Path, options: ExportOptions, overwrite: bool) -> tuple[Model, Exporter]:
    """The model in the sizes asked for, and how it is quantised; cheap checks go first."""
    place, precision = require(TARGETS, options.target, options.precision)
    precision.check(options.quantization, place)
    check_destination(out, overwrite=overwrite)
    model, made = prepared(source, options)
    quantization = options.quantization
    if options.max_accuracy_drop is not None:
        quantization = dataclasses.replace(quantization, budget=_budget(model, made, options.max_accuracy_drop))
    exporter = Exporter(made, precision, place, quantization)
    exporter.check()
    return model, exporter


def prepared(source: Source, options: ExportOptions) -> tuple[Model, Blueprint]:
    """The model of a source with its data, and its blueprint in the sizes asked for; raises as `export` does."""
    report(f"load {source if isinstance(source, (str, Path)) else type(source).__name__}")
    drawn = options.drawn
    origin = find(source)
    data = None if drawn.data is None else open_data(drawn.data)
    model = load(origin, options, example=data.first() if data is not None and origin.users else None)
    model = _folded(model, options)
    if data is not None:
        model = dataclasses.replace(model, dataset=dataset_of(model, data, drawn))
    for note in model.notes:
        LOGGER.warning("warning: %s", note)
    return model, _sized(blueprint(model), options)


def _folded(model: Model, options: ExportOptions) -> Model:
    """The model, with its image preprocessing in the graph if that is asked for."""
    if options.fold_preprocessing is None:
        return model
    height, width = options.fold_preprocessing
    return folded(model, Frames(height, width, options.pixel_format or "uint8"))


def _record(out: Path, manifest: Manifest, model: Model, options: ExportOptions) -> None:
    """Record where source and data are; the bundle is complete without it."""
    if model.origin is None:
        return
    try:
        place = Path(options.data) if isinstance(options.data, str | os.PathLike) else None
        data = place if place is not None and place.exists() else None
        write_record(out, manifest.source.weights_sha256, model.origin, options, data)
    except OSError as error:
        LOGGER.warning("warning: the place of the source is not recorded beside %s: %s", out, error)


def _sized(made: Blueprint, options: ExportOptions) -> Blueprint:
    """The blueprint for the ranges asked for, in chunks that fit into the memory asked for."""
    made = with_ranges(made, {**_batch(made.cut.profile, options), **options.ranges})
    if options.max_memory is None:
        return made
    chunks = {step.chunk.dimension for step in made.cut.pipeline.steps if step.chunk}
    if both := sorted(chunks & set(options.ranges)):
        raise UsageError(
            f"{option('max_memory')}: it chooses the size of chunks, and the range of {', '.join(both)} states it; "
            "leave one out"
        )
    return dataclasses.replace(made, cut=fit(made.cut, options.max_memory))


def _batch(profile: Profile, options: ExportOptions) -> Mapping[str, Range]:
    """The range of the batch, where it is not the model's own."""
    own, largest = profile.dimensions.get(BATCH), options.max_batch
    if largest is None:
        engines = TARGETS[options.target].engines
        return (
            {}
            if own is None or engines is None
            else {BATCH: dataclasses.replace(own, max=min(own.max, engines.max_batch))}
        )
    if BATCH in options.ranges:
        raise UsageError(
            f"{option('max_batch')}: got {largest}, and the range {BATCH}={options.ranges[BATCH]}; leave one out"
        )
    low, typical = (own.min, own.opt) if own is not None else (1, 1)
    return {BATCH: Range(min(low, largest), min(typical, largest), largest)}


def _budget(model: Model, made: Blueprint, points: float) -> Budget:
    if model.dataset is None:
        raise UsageError(
            f"{option('max_accuracy_drop')}: {model.name} has no data set to measure its accuracy on; give "
            "labelled samples (--data), or leave it out"
        )
    cut = made.cut
    fixed = fixed_batch(cut.pipeline.inputs)
    return accuracy_budget(model.dataset, points, batch_within((cut.profile,), BUDGET_BATCH), fixed)
