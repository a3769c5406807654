"""`perceiver-export inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import common_options, print_json, print_table

if TYPE_CHECKING:
    from perceiver_exporters.precision.record import ComponentPrecision
    from perceiver_exporters.roofline.forecast import Forecast
    from perceiver_exporters.rules import RuleOutcome
    from perceiver_runtime.bundle import Bundle

PARTS = ("rules", "precision", "forecast")


@click.command("inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--rules", is_flag=True, help="Show which rewrite rules were applied to each graph, or why not.")
@click.option("--precision", is_flag=True, help="Show the proof of precision, what was kept in FP32, and why.")
@click.option("--forecast", is_flag=True, help="Forecast the latency on boards that are not at hand.")
@common_options
def command(bundle: Path, rules: bool, precision: bool, forecast: bool, as_json: bool) -> None:
    """Show what BUNDLE holds, after checking every file's size and hash.

    With --json, several of --rules, --precision and --forecast are one object with an entry for each.
    """
    from perceiver_deploy.api.inspect import inspect
    from perceiver_runtime.cli.report import overview

    found = inspect(bundle, rules=rules, precision=precision, forecast=forecast)
    loaded = found.bundle
    parts = {name: part for name in PARTS if (part := getattr(found, name)) is not None}
    if as_json:
        return print_json(parts if len(parts) > 1 else next(iter(parts.values()), overview(loaded)))
    if rules:
        _show_rules(loaded, parts["rules"])
    if precision:
        _show_precision(loaded, parts["precision"])
    if forecast:
        _show_forecasts(loaded, parts["forecast"])
    return None if parts else _show_components(loaded)


def _show_components(loaded: Bundle) -> None:
    from perceiver_runtime.cli.report import amount, digest_line, running, weights
    from perceiver_runtime.measure.parity import golden_origin

    manifest, source = loaded.manifest, loaded.manifest.source
    steps = {step.component: step for step in manifest.pipeline.steps}
    rows = [
        (
            c.name,
            c.precision,
            str(steps[c.name].repeat) if c.name in steps else "",
            amount(c.parameters),
            amount(c.flops, "G"),
            tuple(map(str, c.inputs)),
            tuple(map(str, c.outputs)),
        )
        for c in manifest.components
    ]
    total = sum(f.size for f in manifest.files.values()) / 1e6
    print_table(
        f"{loaded.path}: {source.name} ({source.family}, {weights(source.pretrained)} weights), {manifest.precision} "
        f"for {manifest.target}, opset {manifest.opset}, {len(manifest.files)} files, {total:.3g} MB; golden samples: "
        f"{golden_origin(manifest)}",
        ("component:<", "precision:<", "repeat", "parameters", "GFLOP", "inputs:<", "outputs:<?"),
        rows,
        f"{digest_line(manifest)}\n{running(loaded)}",
    )


def _show_rules(loaded: Bundle, outcomes: dict[str, tuple[RuleOutcome, ...]]) -> None:
    rows = [
        (
            component,
            outcome.rule,
            "yes" if outcome.applied else "no",
            _change(outcome.before.flops, outcome.after.flops, 1e9),
            _change(outcome.before.written, outcome.after.written, 1e6),
            _change(outcome.before.constants, outcome.after.constants, 1e6),
            outcome.detail,
        )
        for component, each in outcomes.items()
        for outcome in each
    ]
    print_table(
        f"{loaded.path}: rewrite rules, in order; GFLOP of matrix products, MB that nodes write, MB of constants",
        ("component:<", "rule:<", "applied:<", "GFLOP:?", "written:?", "constants:?", "what or why not:<"),
        rows,
    )


def _change(before: int, after: int, unit: float) -> str:
    return f"{before / unit:.3g} -> {after / unit:.3g}" if before != after else f"{after / unit:.3g}"


def _show_precision(loaded: Bundle, report: tuple[ComponentPrecision, ...]) -> None:
    rows = [
        (
            entry.component,
            f"{entry.weighted:.1%}",
            f"{entry.overall:.1%}",
            entry.run_in(loaded.manifest.precision),
            entry.ranges,
            (*entry.kept, *map(str, entry.findings)),
        )
        for entry in report
    ]
    print_table(
        f"{loaded.path}: shares of the FLOPs of matrix products with a weight, and of all",
        ("component:<", "weighted", "all", "kernels:<", "calibration:<", "kept in FP32:<"),
        rows,
    )


def _show_forecasts(loaded: Bundle, found: tuple[Forecast, ...]) -> None:
    rows = [
        (
            each.board,
            each.precision,
            f"{each.optimistic_s * 1e3:.3g}",
            f"{each.pessimistic_s * 1e3:.3g}",
            max(each.components, key=lambda component: component.optimistic_s).bound,
            f"{each.memory / 1e9:.3g}",
            "yes" if each.fits else "no",
        )
        for each in found
    ]
    assumed = dict.fromkeys(sentence for each in found for sentence in each.assumptions)
    sources = dict.fromkeys(f"{each.board}: {each.source}" for each in found)
    print_table(
        f"{loaded.path}: forecast of a run on boards that are not at hand; nothing was measured on them",
        ("board:<", "precision:<", "ms at best", "ms at worst", "bound:<?", "GB:?", "fits:<"),
        rows,
        "\n".join(("Assumptions:", *(f"- {text}" for text in assumed), "Peaks:", *(f"- {text}" for text in sources))),
    )
