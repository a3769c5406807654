"""`export`: a model or checkpoint becomes a bundle; `plan`: what that would do, without doing it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.api.budget import BATCH as BUDGET_BATCH
from perceiver_deploy.api.budget import accuracy_budget
from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.loaded import DEFAULT
from perceiver_deploy.sources.source import Model, blueprint, resolve
from perceiver_deploy.sources.source_record import write_record
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle, require_data
from perceiver_exporters.memory.estimate import estimate, fit
from perceiver_exporters.precision.options import DEFAULTS, Budget, QuantizationOptions, require
from perceiver_exporters.sizes import with_ranges
from perceiver_exporters.targets.target import TARGETS, Target
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.ranges import BATCH, batch_within
from perceiver_runtime.format.staging import check_destination
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.tensors import Profile, Range

NO_RANGES: Mapping[str, Range] = {}

LOGGER = logging.getLogger(__name__)


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
    ranges: Mapping[str, Range]


def export(
    source: str | Path,
    out: str | Path,
    *,
    precision: str = "fp32",
    target: str = "cpu",
    overwrite: bool = False,
    max_memory: int | None = None,
    max_batch: int | None = None,
    ranges: Mapping[str, Range] = NO_RANGES,
    options: LoadOptions = DEFAULT,
    quantization: QuantizationOptions = DEFAULTS,
    max_accuracy_drop: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export `source` (a zoo name, a checkpoint directory or a hub id) as a bundle at `out`.

    `max_memory` bounds the bytes that a session is expected to need at the profile's `opt` sizes: it sets the sizes
    of the chunks in which long inputs are read and long outputs made (None: the family's own sizes). `ranges` are those
    of dynamic dimensions (not given: the family's own), within what the model takes; the OPT of a chunk's dimension is
    the chunk's size. `max_batch` is short for the MAX of `batch` (None: the family's own, and at most
    `EngineTarget.max_batch` where engines are built, for they reserve memory for it). `options` say
    the size of images where the model takes any, and which revision of a hub id, where it is cached, and whether it
    may be downloaded. Assumptions are logged as warnings: random weights, a size that nothing states.
    `quantization` says how int8 is calibrated, and how many bits the weights of int8 and int8-dynamic have;
    `max_accuracy_drop`, in points, has the fewest layers left in FP32 that keep the accuracy on the model's data
    within it. Where the source lies is recorded beside the bundle, which appears whole or not at
    all. Raises UsageError (unknown names, existing destination, int8 without calibration data, an option that the
    precision or target does not have, no chunks that are small enough), CheckpointError, UnavailableError (a hub id
    that can't be fetched), CheckError (the graph does not hold the asked precision, or the accuracy can't be held).
    """
    _check_request(Path(out), precision, target, quantization, overwrite)
    progress(f"load {_name(source)}")
    model = resolve(source, options)
    _announce(model)
    made = _sized(blueprint(model), target, max_batch, ranges, max_memory)
    quantization = _checked(model, made, precision, target, quantization, max_accuracy_drop)
    progress(f"memory: {estimate(made.cut)}")
    manifest = export_bundle(
        made, Path(out), precision, target, overwrite=overwrite, progress=progress, quantization=quantization
    )
    _record(Path(out), manifest, model, options)
    return manifest


def plan(
    source: str | Path,
    out: str | Path,
    *,
    precision: str = "fp32",
    target: str = "cpu",
    overwrite: bool = False,
    max_memory: int | None = None,
    max_batch: int | None = None,
    ranges: Mapping[str, Range] = NO_RANGES,
    options: LoadOptions = DEFAULT,
    quantization: QuantizationOptions = DEFAULTS,
    max_accuracy_drop: float | None = None,
) -> ExportPlan:
    """Say what `export` with the same arguments would write. Raises the same errors of usage and of the destination."""
    _check_request(Path(out), precision, target, quantization, overwrite)
    model = resolve(source, options)
    _announce(model)
    made = _sized(blueprint(model), target, max_batch, ranges, max_memory)
    _checked(model, made, precision, target, quantization, max_accuracy_drop)
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
        str(source),
        made.source.family,
        made.source.pretrained,
        str(out),
        precision,
        target,
        len(made.calibration),
        components,
        str(estimate(made.cut)),
        made.cut.profile.dimensions,
    )


def _name(source: object) -> str:
    """A source in a line of progress; what is none is refused later."""
    return str(source) if isinstance(source, (str, Path)) else type(source).__name__


def _announce(model: Model) -> None:
    for note in model.notes:
        LOGGER.warning("warning: %s", note)


def _record(out: Path, manifest: Manifest, model: Model, options: LoadOptions) -> None:
    """Where the source lies is worth recording, and no reason to fail when the bundle is complete."""
    if model.origin is None:
        return
    try:
        write_record(out, manifest.source.weights_sha256, model.origin, options)
    except OSError as error:
        LOGGER.warning("warning: where the source lies is not recorded beside %s: %s", out, error)


def _check_request(out: Path, precision: str, target: str, quantization: QuantizationOptions, overwrite: bool) -> None:
    """All that can be refused before the model is loaded."""
    quantization.require(*require(TARGETS, target, precision))
    check_destination(out, overwrite=overwrite)


def _checked(
    model: Model,
    made: Blueprint,
    precision: str,
    target: str,
    quantization: QuantizationOptions,
    max_accuracy_drop: float | None,
) -> QuantizationOptions:
    """The options with their accuracy budget, held against the model: all that can be refused before it is traced."""
    if max_accuracy_drop is not None:
        quantization = dataclasses.replace(quantization, budget=_budget(model, made, max_accuracy_drop))
    place, chosen = require(TARGETS, target, precision)
    quantization.require(place, chosen)
    require_data(made, chosen, quantization)
    return quantization


def _sized(
    made: Blueprint, target: str, max_batch: int | None, ranges: Mapping[str, Range], max_memory: int | None
) -> Blueprint:
    """The blueprint for the ranges asked for, in chunks that fit into the memory asked for."""
    chosen = {**_batch(made.cut.profile, TARGETS[target], max_batch, ranges), **ranges}
    made = with_ranges(made, chosen)
    if max_memory is None:
        return made
    chunks = {step.chunk.dimension for step in made.cut.pipeline.steps if step.chunk}
    if both := sorted(chunks & set(ranges)):
        raise UsageError(f"range of {', '.join(both)}: max-memory chooses the size of these chunks; leave one out")
    return dataclasses.replace(made, cut=fit(made.cut, max_memory))


def _batch(profile: Profile, target: Target, max_batch: int | None, ranges: Mapping[str, Range]) -> Mapping[str, Range]:
    """The range of the batch, where it is not the family's own."""
    own = profile.dimensions.get(BATCH)
    if max_batch is None:
        largest = None if target.engines is None else target.engines.max_batch
        return {} if own is None or largest is None else {BATCH: dataclasses.replace(own, max=min(own.max, largest))}
    if BATCH in ranges:
        raise UsageError(f"max-batch {max_batch}: the range {BATCH}={ranges[BATCH]} says it already; leave one out")
    low, typical = (own.min, own.opt) if own is not None else (1, 1)
    return {BATCH: Range(min(low, max_batch), min(typical, max_batch), max_batch)}


def _budget(model: Model, made: Blueprint, points: float) -> Budget:
    if model.dataset is None:
        raise UsageError(
            f"accuracy budget: {model.name} has no data set to measure its accuracy on; give the model one"
        )
    return accuracy_budget(model.dataset, points, batch_within((made.cut.profile,), BUDGET_BATCH))
