"""`export`: a model or checkpoint becomes a bundle; `plan`: what that would do, without doing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.source import blueprint, resolve
from perceiver_exporters.export import export_bundle
from perceiver_exporters.targets import TARGETS, require
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


def export(
    source: str,
    out: str | Path,
    *,
    precision: str = "fp32",
    target: str = "cpu",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export `source` (a zoo name or a checkpoint directory) as a bundle at `out`.

    The bundle appears whole or not at all. Raises UsageError (unknown names, existing destination, int8 without
    calibration data), CheckpointError, CheckError (the graph does not hold the asked precision).
    """
    require(TARGETS, target, precision)
    progress(f"load {source}")
    return export_bundle(
        blueprint(resolve(source)), Path(out), precision, target, overwrite=overwrite, progress=progress
    )


def plan(source: str, out: str | Path, *, precision: str = "fp32", target: str = "cpu") -> ExportPlan:
    """Say what `export` with the same arguments would write. Raises the same usage errors."""
    require(TARGETS, target, precision)
    made = blueprint(resolve(source))
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
    )
