"""`perceiver-export export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perceiver_deploy.cli.output import common_options, echo, print_json, print_table
from perceiver_deploy.cli.values import POINTS, PRECISION, TARGET, Name, Pixels, Size, parse_dynamic
from perceiver_runtime.progress import report

if TYPE_CHECKING:
    from perceiver_deploy.api.export import DryRun
    from perceiver_exporters.precision.options import QuantizationOptions


@click.command("export")
@click.argument("source")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory of the bundle.")
@click.option("--precision", default="fp32", show_default=True, type=PRECISION, help="What the graphs compute in.")
@click.option("--target", default="cpu", show_default=True, type=TARGET, help="What the bundle is to run on.")
@click.option("--max-memory", type=Size(), help="What a session may need, as 1500MB; sets the sizes of chunks.")
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
@click.option(
    "--quantize-attention",
    "attention",
    is_flag=True,
    help="The products of attention in int8 as well, on target cpu: faster where the processor has VNNI.",
)
@click.option(
    "--tune", "tuned", is_flag=True, help="Then do what `tune` does: record what runs the bundle fastest here."
)
@click.option("--no-cache", is_flag=True, help="Calibrate anew; keep no statistics for the next export.")
@click.option(
    "--image-size",
    type=Pixels(),
    metavar="HxW",
    help="Height and width of the images, as 48x64, for a checkpoint that takes images of any size.",
)
@click.option(
    "--fold-preprocessing",
    type=Pixels(),
    metavar="HxW",
    help="Take frames of 8 bits of this size, as cameras give them: resize and normalisation go into the graph.",
)
@click.option(
    "--pixel-format",
    type=Name(("uint8", "nv12")),
    help="Of these frames: uint8 (batch, height, width, channels) [default], or nv12.",
)
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="For a module of your own: an example of forward's inputs, by name, with a batch axis.",
)
@click.option(
    "--dynamic",
    "dynamics",
    multiple=True,
    metavar="NAME=DIM,DIM,...",
    help="For a module of your own: sizes of an input, with names for those that vary, as x=batch,3,height,width. "
    "Repeatable.",
)
@click.option(
    "--cut",
    "modules",
    metavar="PATH,PATH,...",
    help="For a module of your own: submodules that become components, as encoder,layers.*,decoder [found].",
)
@click.option(
    "--data",
    metavar="SOURCE",
    help="Samples of your own: .npz, a directory of them, a folder of images with one subfolder per class, CSV or JSON "
    "lines of text and label, frames with flow, or file.py:function.",
)
@click.option("--calibration-samples", type=click.IntRange(0), help="Samples for the ranges of int8 [512].")
@click.option("--golden-samples", type=click.IntRange(1), help="Samples that are stored in the bundle [8].")
@click.option("--evaluation-samples", type=click.IntRange(0), help="Samples that metrics are measured on [2000].")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Draws the samples of each use.")
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where hub ids are cached.")
@click.option("--local-files-only", is_flag=True, help="Take a hub id from the cache; download nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle once the new one is complete.")
@click.option("--no-verify", is_flag=True, help="Skip the comparison with the golden samples after the export.")
@click.option("--dry-run", "dry", is_flag=True, help="Tell what would be written; trace and write nothing.")
@common_options
def command(
    source: str,
    out: Path,
    ranges: tuple[str, ...],
    calibrations: tuple[str, ...],
    dynamics: tuple[str, ...],
    modules: str | None,
    reduce_range: bool,
    attention: bool,
    no_cache: bool,
    tuned: bool,
    overwrite: bool,
    no_verify: bool,
    dry: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Export SOURCE to a bundle and verify it.

    SOURCE is a model of the zoo, a checkpoint directory, a hub id, or code of your own that makes a torch.nn.Module:
    my_model.py:make or package.module:make, a function without arguments.
    """
    from perceiver_deploy.api.export import dry_run, export
    from perceiver_deploy.api.options import ExportOptions
    from perceiver_deploy.cli.verify import check
    from perceiver_runtime.format.outputs import check_file
    from perceiver_runtime.format.ranges import parse_ranges
    from perceiver_runtime.format.tuning import tuning_path

    if tuned and settings["target"] != "cpu":
        raise click.UsageError(f"--tune measures this machine's CPU; expected --target cpu, got {settings['target']}")
    if tuned:
        check_file(tuning_path(out))
    quantization = _quantization(calibrations, no_cache, reduce_range, attention)
    options = ExportOptions(
        ranges=parse_ranges(ranges),
        quantization=quantization,
        dynamic=parse_dynamic(dynamics),
        cut=tuple(modules.split(",")) if modules else (),
        **settings,
    )
    if dry:
        return _show_dry_run(dry_run(source, out, overwrite=overwrite, options=options), as_json)
    manifest = export(source, out, overwrite=overwrite, options=options)
    if tuned:
        _tune(out, as_json)
    if no_verify:
        if as_json:
            print_json({"bundle": str(out), "manifest": manifest})
        else:
            echo(f"digest {manifest.digest}")
        return 0
    report("verify against the golden samples")
    return check(out, None, None, None, as_json)


def _tune(bundle: Path, as_json: bool) -> None:
    from perceiver_deploy.api.tune import tune
    from perceiver_deploy.cli.tune import print_tuning

    tuning = tune(bundle)
    if not as_json:  # stdout is for one document; the tuning is one of its own
        print_tuning(bundle, tuning)


def _quantization(
    calibrations: tuple[str, ...], no_cache: bool, reduce_range: bool, attention: bool
) -> QuantizationOptions:
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
    return QuantizationOptions(method, named, cache, reduce_range=reduce_range, attention=attention)


def _show_dry_run(planned: DryRun, as_json: bool) -> int:
    if as_json:
        print_json(planned)
        return 0
    sizes = ", ".join(f"{name} {span}" for name, span in planned.ranges.items()) or "fixed"
    from perceiver_runtime.cli.report import amount, weights

    print_table(
        f"{planned.source} ({planned.family}, {weights(planned.pretrained)} weights) -> {planned.destination}: "
        f"{planned.precision} for {planned.target}, {planned.calibration_batches} calibration batches; "
        f"memory: {planned.memory}; sizes (MIN:OPT:MAX): {sizes}",
        ("component:<", "stage:<", "repeat", "parameters", "shared:?", "GFLOP", "inputs:<", "outputs:<"),
        [
            (
                c.name,
                c.stage,
                str(c.repeat),
                amount(c.parameters),
                amount(c.shared),
                f"{c.flops / 1e9:.3g}",
                c.inputs,
                c.outputs,
            )
            for c in planned.components
        ],
    )
    return 0
