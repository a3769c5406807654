"""`perceiver-export export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.numbers import POINTS, Bytes, Pixels
from perceiver_deploy.cli.output import Progress, json_option, print_json, print_table, progress, quiet_option

if TYPE_CHECKING:
    from perceiver_deploy.api.export import ExportPlan
    from perceiver_exporters.precision.options import QuantizationOptions


@click.command("export")
@click.argument("source")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory of the bundle.")
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    help="fp32, fp16, bf16, int8, int8-dynamic, fp8 or int4.",
)
@click.option("--target", default="cpu", show_default=True, help="Where the bundle is to run.")
@click.option("--max-memory", type=Bytes(), help="What a session may need, as 1500MB; sets the sizes of chunks.")
@click.option("--max-batch", type=click.IntRange(1), help="Largest batch [64 or the model's; for engines at most 8].")
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME=MIN:OPT:MAX",
    help="Sizes of a dynamic dimension, as batch=1:4:16; --dry-run shows all. Repeatable.",
)
@click.option(
    "--calibration",
    "calibrations",
    multiple=True,
    metavar="METHOD",
    help="Ranges of int8: minmax (default), percentile or entropy; COMPONENT=METHOD for one component. Repeatable.",
)
@click.option(
    "--max-accuracy-drop",
    type=POINTS,
    metavar="POINTS",
    help="Leave the fewest integer layers in FP32 that keep the accuracy within so many points of the reference's.",
)
@click.option(
    "--reduce-range",
    is_flag=True,
    help="7-bit weights of int8 and int8-dynamic on target cpu: faster where the processor has no VNNI.",
)
@click.option("--tune", "tuned", is_flag=True, help="Measure what runs the bundle fastest here; record it beside it.")
@click.option("--no-cache", is_flag=True, help="Calibrate anew; keep no statistics for the next export.")
@click.option(
    "--image-size",
    type=Pixels(),
    metavar="HxW",
    help="Height and width of the images, as 48x64, for a checkpoint that takes images of any size.",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where hub ids are cached.")
@click.option("--local-files-only", is_flag=True, help="Take a hub id from the cache; download nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle once the new one is complete.")
@click.option("--no-verify", is_flag=True, help="Skip the comparison with the golden samples after the export.")
@click.option("--dry-run", is_flag=True, help="Print the plan; trace and write nothing.")
@json_option
@quiet_option
def command(
    source: str,
    out: Path,
    precision: str,
    target: str,
    max_memory: int | None,
    max_batch: int | None,
    ranges: tuple[str, ...],
    calibrations: tuple[str, ...],
    max_accuracy_drop: float | None,
    reduce_range: bool,
    tuned: bool,
    no_cache: bool,
    image_size: tuple[int, int] | None,
    revision: str | None,
    cache_dir: Path | None,
    local_files_only: bool,
    overwrite: bool,
    no_verify: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Export SOURCE to a bundle and verify it: a model of the zoo, a checkpoint directory, or a hub id."""
    from perceiver_deploy.api.export import export, plan
    from perceiver_deploy.checkpoints import LoadOptions
    from perceiver_runtime.format.outputs import check_file
    from perceiver_runtime.format.ranges import parse_ranges
    from perceiver_runtime.format.tuning import tuning_path

    if tuned and target != "cpu":
        raise click.UsageError(f"--tune measures this machine's CPU; expected --target cpu, got {target}")
    if tuned:
        check_file(tuning_path(out))
    options = LoadOptions(
        image_size=image_size, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
    )
    quantization = _quantization(calibrations, no_cache, reduce_range)
    if dry_run:
        planned = plan(
            source,
            out,
            precision=precision,
            target=target,
            overwrite=overwrite,
            max_memory=max_memory,
            max_batch=max_batch,
            ranges=parse_ranges(ranges),
            options=options,
            quantization=quantization,
            max_accuracy_drop=max_accuracy_drop,
        )
        return _show_plan(planned, as_json)
    report = progress(quiet)
    manifest = export(
        source,
        out,
        precision=precision,
        target=target,
        overwrite=overwrite,
        max_memory=max_memory,
        max_batch=max_batch,
        ranges=parse_ranges(ranges),
        options=options,
        quantization=quantization,
        max_accuracy_drop=max_accuracy_drop,
        progress=report,
    )
    if tuned:
        _tune(out, report, as_json)
    if no_verify:
        if as_json:
            print_json({"bundle": str(out), "manifest": manifest})
        return 0
    from perceiver_deploy.cli.verify import check

    report("verify against the golden samples")
    return check(out, None, None, as_json)


def _tune(bundle: Path, report: Progress, as_json: bool) -> None:
    from perceiver_deploy.api.tune import tune
    from perceiver_runtime.format.tuning import tuning_path

    tuning = tune(bundle, progress=report)
    report(f"tuning: {tuning_path(bundle)}")
    if as_json:
        return  # stdout is for one document; the tuning is one of its own
    columns = ("setting:<", "ms", "time / fastest", "95% interval")
    rows = [
        (f"{m.backend}, threads {m.threads}", f"{m.milliseconds:.3f}", f"{m.ratio:.2f}", f"{m.low:.2f} to {m.high:.2f}")
        for m in tuning.measured
    ]
    print_table(f"{bundle}, batch 1", columns, rows, tuning.machine)


def _quantization(calibrations: tuple[str, ...], no_cache: bool, reduce_range: bool) -> QuantizationOptions:
    """Methods of all components, and of those that are named."""
    from perceiver_exporters.precision.calibration.store import cache_directory
    from perceiver_exporters.precision.options import QuantizationOptions

    general = [method for method in calibrations if "=" not in method]
    pairs = [method.partition("=") for method in calibrations if "=" in method]
    named = {component: method for component, _, method in pairs}
    if len(general) > 1 or len(named) < len(pairs):
        raise click.UsageError(
            f"--calibration: expected one method for all and one for each component, got {', '.join(calibrations)}"
        )
    method = general[-1] if general else "minmax"
    cache = None if no_cache else cache_directory()
    return QuantizationOptions(method, named, cache, reduce_range=reduce_range)


def _show_plan(planned: ExportPlan, as_json: bool) -> int:
    if as_json:
        print_json(planned)
        return 0
    sizes = ", ".join(f"{name} {span}" for name, span in planned.ranges.items()) or "fixed"
    weights = "shipped or given weights" if planned.pretrained else "RANDOM weights"
    print_table(
        f"{planned.source} ({planned.family}, {weights}) -> {planned.destination}: "
        f"{planned.precision} for {planned.target}, {planned.calibration_batches} calibration batches; "
        f"memory: {planned.memory}; sizes (MIN:OPT:MAX): {sizes}",
        ("component:<", "repeat", "parameters", "inputs:<", "outputs:<"),
        [
            (c.name, str(c.repeat), f"{c.parameters:,}", "\n".join(c.inputs), "\n".join(c.outputs))
            for c in planned.components
        ],
    )
    return 0
