"""Results as text: plain tables for people, JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.cli.table import Draw, table, wrapped
from perceiver_runtime.conditions import Conditions, conditions_here
from perceiver_runtime.escapes import printable
from perceiver_runtime.execution.choice import RunsOn, expected, has_engines
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.measure.compare import ParityReport
from perceiver_runtime.measure.parity import golden_origin
from perceiver_runtime.measure.verify import VerifyReport
from perceiver_runtime.tensors import Array, TensorSpec

if TYPE_CHECKING:  # other commands must not wait for these modules
    from perceiver_runtime.tensorrt.builder.bundle import EngineReport

PARITY = (
    "component:<",
    "tensor:<",
    "max abs:?",
    "rel L2",
    "tolerance",
    "centred",
    "tolerance",
    "cosine:?",
    "verdict:<",
    "fed by:<?",
)
"""Columns of a parity table; `centred` is the error relative to the spread of the golden rows."""
ENGINES = ("component:<", "seconds", "MB", "layers", "matrix products:<", "attention:<")


def to_json(value: Any) -> str:
    """A frozen result, or a sequence of them, as JSON; NaN and infinity, which JSON lacks, as null."""
    return strict_json.dumps(strict_json.without_nonfinite(schema.encode(value)))


def records(
    results: Sequence[Any], runs_on: RunsOn | None, conditions: Conditions | None = None
) -> list[dict[str, Any]]:
    """Results for JSON, each with what it ran on, and under which conditions."""
    more = {"runs_on": runs_on} if conditions is None else {"runs_on": runs_on, "conditions": conditions}
    return [{**schema.encode(result), **schema.encode(more)} for result in results]


def describe(manifest: Manifest, draw: Draw = table) -> str:
    """What a bundle is, in a few lines."""
    source, pipeline = manifest.source, manifest.pipeline
    trained = weights(source.pretrained)
    head = f"{source.name} ({source.family}, {trained} weights), {manifest.precision} for {manifest.target}\n"
    specs = [f"input   {s}{_range(s)}{_default(pipeline.defaults, s.name)}" for s in pipeline.inputs]
    specs += [f"output  {s}" for s in pipeline.outputs]
    ranges = [
        f"profile {p.name}: " + ", ".join(f"{s} {r.min} to {r.max}" for s, r in p.dimensions.items())
        for p in manifest.profiles
    ]
    runs = Counter({component.name: 0 for component in manifest.components})
    for step in pipeline.steps:
        runs[step.component] += step.repeat
    rows = [
        (c.name, c.precision, amount(c.parameters), amount(c.flops, "G"), str(runs[c.name]))
        for c in manifest.components
    ]
    lines = wrapped("\n".join((head, *specs, *ranges, f"golden  {golden_origin(manifest)}", digest_line(manifest))))
    return f"{lines}\n\n{draw(('component:<', 'precision:<', 'parameters', 'GFLOP', 'repeat'), rows)}"


def digest_line(manifest: Manifest) -> str:
    """What a copy of a bundle can be compared by."""
    return f"digest  {manifest.digest}"


def overview(bundle: Bundle) -> dict[str, Any]:
    """For JSON: the manifest, with the bundle's engines and what `auto` takes here."""
    more = {"engines": _engines(bundle), "runs_on": expected(bundle), "conditions": conditions_here(bundle)}
    return {**schema.encode(bundle.manifest), **schema.encode(more)}


def running(bundle: Bundle) -> str:
    """The bundle's engines and what `auto` takes here, in lines."""
    return wrapped("\n".join((*(f"engines {each}" for each in _engines(bundle)), f"auto    {expected(bundle)}")))


def _engines(bundle: Bundle) -> tuple[Any, ...]:
    if not has_engines(bundle):
        return ()
    from perceiver_runtime.tensorrt.summary import engines_of  # other commands must not wait for these modules

    return engines_of(bundle)


def parity_rows(reports: Sequence[ParityReport]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Columns and rows of a parity table: one row for each tensor and mode."""
    return PARITY, [
        (
            r.component,
            r.tensor,
            f"{r.max_abs:.1e}",
            f"{r.rel_l2:.1e}",
            f"{r.tolerance:.1e}",
            "-" if r.centred is None else f"{r.centred:.1e}",
            "-" if r.centred_tolerance is None else f"{r.centred_tolerance:.1e}",
            f"{r.cosine:.6f}",
            verdict(r.passed),
            r.mode,
        )
        for r in reports
    ]


def parity_table(result: VerifyReport, draw: Draw = table) -> str:
    """The parity table, the verdict, and the digest of what was verified."""
    digest = f"\ndigest {result.conditions.digest}" if result.conditions is not None else ""
    line = wrapped(f"{golden_line(result)}: {verdict(result.passed)}{digest}")
    return f"{draw(*parity_rows(result.reports))}\n{line}"


def golden_line(result: VerifyReport) -> str:
    """How many golden samples were compared, and where they came from."""
    return f"{result.samples} golden sample{'s' if result.samples > 1 else ''}, {result.origin}"


def array_table(arrays: Mapping[str, Array], path: Path, draw: Draw = table) -> str:
    """What was written."""
    rows = [(name, array.dtype.name, str(list(array.shape))) for name, array in arrays.items()]
    return f"{draw(('output:<', 'type:<', 'shape:<'), rows)}\nwritten to {printable(str(path))}"


def engine_table(reports: Sequence[EngineReport]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Columns and rows of a table of built engines."""
    return ENGINES, [
        (
            r.component,
            "kept" if r.kept else f"{r.seconds:.1f}",
            f"{r.engine_bytes / 1e6:.3g}",
            "-" if r.layers is None else str(r.layers),
            ", ".join(f"{count} {kind}" for kind, count in r.products.items()) or "none",
            r.attention,
        )
        for r in reports
    ]


def verdict(passed: bool) -> str:
    """The word for the verdict of a check."""
    return "passed" if passed else "FAILED"


def weights(pretrained: bool) -> str:
    """The word for where weights come from."""
    return "pretrained" if pretrained else "random"


def amount(number: float, prefix: str = "") -> str:
    """A number with three digits and its SI prefix (201 M), or in units of one prefix (0.0123)."""
    factors = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
    if prefix:
        scaled = number / factors[prefix]
        return f"{scaled:.3g}" if scaled < 1000 else f"{scaled:,.0f}"
    largest = max((p for p in factors if factors[p] <= abs(number)), key=factors.__getitem__, default="")
    return f"{number / factors[largest]:.3g} {largest}".strip()


def _range(spec: TensorSpec) -> str:
    return f", {spec.range}" if spec.range else ""


def _default(defaults: Mapping[str, float], name: str) -> str:
    return f" = {defaults[name]:g} if not given" if name in defaults else ""
