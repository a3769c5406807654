"""`perceiver-export inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perceiver_deploy.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from perceiver_exporters.precision.report import ComponentPrecision
    from perceiver_exporters.rules import RuleOutcome
    from perceiver_runtime.bundle import Bundle


@click.command("inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--rules", is_flag=True, help="Show which rewrite rules were applied to each graph, or why not.")
@click.option("--precision", is_flag=True, help="Show the proof of precision, what was kept in FP32, and why.")
@json_option
def command(bundle: Path, rules: bool, precision: bool, as_json: bool) -> None:
    """Show what BUNDLE holds, after checking every file's size and hash.

    With --json, --rules and --precision together are one object with an entry for each.
    """
    from perceiver_runtime import load_bundle
    from perceiver_runtime.cli.report import overview

    loaded = load_bundle(bundle)
    parts: dict[str, Any] = {}
    if rules:
        parts["rules"] = _outcomes(loaded)
    if precision:
        parts["precision"] = _report(loaded)
    if as_json:
        return print_json(parts if len(parts) > 1 else next(iter(parts.values()), overview(loaded)))
    if rules:
        _show_rules(loaded, parts["rules"])
    if precision:
        _show_precision(loaded, parts["precision"])
    return None if parts else _show_components(loaded)


def _show_components(loaded: Bundle) -> None:
    from perceiver_runtime.cli.report import running
    from perceiver_runtime.measure.verify import golden_origin

    manifest = loaded.manifest
    steps = {step.component: step for step in manifest.pipeline.steps}
    rows = [
        (
            c.name,
            c.precision,
            str(steps[c.name].repeat) if c.name in steps else "",
            f"{c.parameters:,}",
            f"{c.flops / 1e9:.4g}",
            "\n".join(map(str, c.inputs)),
            "\n".join(map(str, c.outputs)),
        )
        for c in manifest.components
    ]
    weights = "trained" if manifest.source.pretrained else "RANDOM weights"
    total = sum(f.size for f in manifest.files.values()) / 1e6
    print_table(
        f"{loaded.path}: {manifest.source.name} ({manifest.source.family}, {weights}), {manifest.precision} for "
        f"{manifest.target}, opset {manifest.opset}, {len(manifest.files)} files, {total:.2f} MB; golden samples: "
        f"{golden_origin(manifest)}",
        ("component:<", "precision:<", "repeat", "parameters", "GFLOP", "inputs:<", "outputs:<"),
        rows,
        running(loaded),
    )


def _outcomes(loaded: Bundle) -> dict[str, tuple[RuleOutcome, ...]]:
    from perceiver_exporters.bundle.stored import stored_graph
    from perceiver_exporters.rules import outcomes

    return {c.name: outcomes(stored_graph(loaded, c.onnx)) for c in loaded.manifest.components}


def _report(loaded: Bundle) -> tuple[ComponentPrecision, ...]:
    from perceiver_exporters.precision.report import PATH, parse_report

    return parse_report(loaded.read(PATH), loaded.file(PATH))


def _show_rules(loaded: Bundle, outcomes: dict[str, tuple[RuleOutcome, ...]]) -> None:
    rows = [
        (
            component,
            outcome.rule,
            "applied" if outcome.applied else "declined",
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
        ("component:<", "rule:<", "", "GFLOP", "written", "constants", "what or why not:<"),
        rows,
    )


def _change(before: int, after: int, unit: float) -> str:
    return f"{before / unit:.4g} -> {after / unit:.4g}" if before != after else f"{after / unit:.4g}"


def _show_precision(loaded: Bundle, report: tuple[ComponentPrecision, ...]) -> None:
    rows = [
        (
            entry.component,
            f"{entry.weighted:.1%}",
            f"{entry.overall:.1%}",
            entry.run_in(loaded.manifest.precision),
            entry.ranges,
            "\n".join((*entry.kept, *map(str, entry.findings))),
        )
        for entry in report
    ]
    print_table(
        f"{loaded.path}: shares of the FLOPs of matrix products with a weight, and of all",
        ("component:<", "weighted", "all", "kernels:<", "calibration:<", "kept in FP32:<"),
        rows,
    )
