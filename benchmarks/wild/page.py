"""docs/wild.md, from the recorded results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wild.entry import Entry

LIMITS: Mapping[str, tuple[str, float]] = {
    "fp32": ("rel_l2", 1e-5),
    "fp16": ("rel_l2", 5e-3),
    "int8": ("centred", 5e-2),
}
"""By precision: the measure of parity, and its limit."""
SPLIT = 1e-6
HEAD = """# Perceivers in the wild

Modules that others published, exported as their packages have them: traced, cut and exported as
[your own](own-models.md) would be, with no family of this project and no copied code. Made by `benchmarks/wild`:

```bash
python benchmarks/wild --packages wild --install   # pip, one folder per package, without their dependencies
python benchmarks/wild --packages wild --write docs/wild.md
```

"""
METHOD = """## How this was measured

Constructor arguments are the package's defaults, its example's or those of a published model; what was reduced for
the time of a processor is stated. Weights are random: matrices are drawn so that activations keep their size,
everything else keeps its package's initial values with some noise, so that outputs depend on inputs. Parity is the
distance to the module in PyTorch (FP32, eager) on inputs that neither calibration nor golden samples contain:
relative L2, and for INT8 also *centred*, over what differs between rows. INT8 is calibrated on inputs of the same
kind. "Verified" is the bundle's own check of every component and of the whole against its derived tolerances. *Split*
is the distance of the components, run one after the other in PyTorch, to the whole module. Engines are built by
TensorRT-RTX on a processor, without a GPU, from bundles for the target `rtx` at that precision.

Speed is FP32, one row per call, one thread, calls in turn; a ratio is the median over the rounds with its 95%
interval. "Plain" is ONNX Runtime on `torch.onnx.export` of the same module at exactly these sizes, with its own
optimisations; the bundle takes any batch and length of its ranges.
"""


def page(record: Mapping[str, Any], catalogue: Sequence[Entry]) -> str:
    """The whole page."""
    found = [record["modules"][e.slug] for e in catalogue if e.slug in record["modules"]]
    done = [m for m in found if not m["failed"]]
    machine, versions = record["machine"], record["versions"]
    loads = sorted(m["load"] for m in done if m["rounds"])
    rounds = sorted({m["rounds"] for m in done if m["rounds"]})
    stated = [
        f"Machine: {machine['name']} ({', '.join(machine['instructions'])}); "
        f"{', '.join(f'{name} {version}' for name, version in versions.items() if name != 'nncf')}."
    ]
    if loads:
        stated.append(
            f"The machine was shared while speed was measured: load average {loads[0]} to {loads[-1]}, "
            f"{' or '.join(map(str, rounds))} rounds."
        )
    parts = [
        HEAD + summary(done),
        "## Modules\n\n" + _modules(found),
        "## Cut, parity and engines\n\n" + _parity(done),
        "## Rewrite rules\n\n" + _rules(done),
        "## Speed\n\n" + _speed([m for m in done if m["milliseconds"]]),
        "## What can't be exported\n\n" + _failed([m for m in found if m["failed"]]),
        METHOD + "\n" + "\n".join(stated),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def holds(module: Mapping[str, Any], precision: str) -> bool:
    """Whether a module is within the limit and its bundle's tolerances at a precision, and its engines were built."""
    parity = module["parity"].get(precision, {})
    measure, limit = LIMITS[precision]
    return parity.get(measure, 1.0) <= limit and parity["verified"] and module["rtx"].get(precision) == "built"


def summary(done: Sequence[Mapping[str, Any]]) -> str:
    """How many modules hold what."""
    whole = sum(all(holds(m, p) for p in LIMITS) for m in done)
    each = ", ".join(f"{sum(holds(m, p) for m in done)} at {p.upper()}" for p in LIMITS)
    several = sum(len(m["steps"]) > 1 for m in done)
    repeated = sum(any(count > 1 for _, count in m["steps"]) for m in done)
    limits = ", ".join(f"{name} {limit:g}" for name, (_, limit) in LIMITS.items())
    split = max((m["split"] for m in done), default=0.0)
    exact = f"to {split:.0e}" if split else "exactly"
    return (
        f"{len(done)} modules are exported. Within a distance to PyTorch of {limits} (INT8 centred over the rows),\n"
        f"verified, and built by TensorRT-RTX: {each}, {whole} at all three.\n"
        f"{several} are cut into several components, {repeated} with one that repeats; in PyTorch, the components\n"
        f"give the whole module's outputs {exact}."
    )


def _modules(found: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (
            m["name"],
            f"`{m['package']}`",
            _millions(m["parameters"]),
            m["size"] + (f"; {m['note']}" if m["note"] else ""),
            m["kind"],
        )
        for m in found
    ]
    return table(("Module", "Package", "Parameters", "Sizes", "Inputs"), rows, "llrll")


def _parity(done: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for m in done:
        cut = ", ".join(f"{name} x {count}" if count > 1 else name for name, count in m["steps"])
        if m["one_component"]:
            cut = f"one component: {m['one_component']}"
        cells = [_cell(m, precision) for precision in LIMITS]
        rows.append((m["name"], cut, _small(m["split"]), *cells, _engines(m)))
    return table(("Module", "Cut", "Split", "FP32", "FP16", "INT8 (centred)", "RTX engines"), rows, "llrrrrl")


def _cell(module: Mapping[str, Any], precision: str) -> str:
    parity = module["parity"].get(precision, {})
    if "failed" in parity or not parity:
        return "not exported"
    text = _small(parity["rel_l2"])
    if precision == "int8":
        text += f" ({_small(parity['centred'])})"
    return text if parity["verified"] else f"{text}, not verified"


def _engines(module: Mapping[str, Any]) -> str:
    built = [p for p in LIMITS if module["rtx"].get(p) == "built"]
    return "all three" if len(built) == len(LIMITS) else ", ".join(built) or "none"


def _rules(done: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for m in done:
        before, after = m["flops"]
        saved = f"{100 * (1 - after / before):.1f}%" if before else ""
        rows.append((m["name"], _figure(before / 1e9), _figure(after / 1e9), saved, ", ".join(m["rules"])))
    return table(("Module", "GFLOP before", "GFLOP after", "Saved", "Rules applied"), rows, "lrrrl")


def _speed(timed: Iterable[Mapping[str, Any]]) -> str:
    rows, notes = [], []
    for m in timed:
        ms = [_figure(m["milliseconds"][n]) if n in m["milliseconds"] else "-" for n in ("torch", "plain", "bundle")]
        ratios = [_ratio(m["faster"][n]) if n in m["faster"] else "-" for n in ("torch", "plain")]
        rows.append((m["name"], *ms, *ratios))
        if m.get("plain_failed"):
            notes.append(f"{m['name']} through PyTorch's exporter can't be run: {m['plain_failed']}")
    head = ("Module", "PyTorch ms", "Plain ms", "Bundle ms", "Times faster than PyTorch", "Times faster than plain")
    return "\n\n".join((table(head, rows, "lrrrrr"), *notes))


def _ratio(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _failed(failed: Iterable[Mapping[str, Any]]) -> str:
    rows = [(m["name"], f"`{m['package']}`", m["failed"].replace("|", "/")) for m in failed]
    return table(("Module", "Package", "Reason"), rows, "lll")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], sides: str) -> str:
    """A Markdown table; `sides` has l or r for each column."""
    lines = [head, ["---:" if side == "r" else "---" for side in sides], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} M" if count else ""


def _small(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
