"""Build every component of every family with TensorRT-RTX, without a GPU, and write the table of docs/tensorrt.md.

    python benchmarks/tensorrt_builds.py                 small models
    python benchmarks/tensorrt_builds.py --released NAME released sizes with random weights
    python benchmarks/tensorrt_builds.py --repeat N      how many of N builds are byte-identical
    python benchmarks/tensorrt_builds.py --attention     both forms of attention of small models, and what was fused

At fp32, fp16 and int8, or at --precision P. Each table replaces the text between its markers in the page; rows of
released sizes are added to those present.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import onnx_ir as ir  # noqa: E402
import torch  # noqa: E402
from engines.rtx import NEWEST, Subject, released, small  # noqa: E402
from factories.families import SMALL  # noqa: E402

from perceiver_exporters.bundle.storage import save_graphs  # noqa: E402
from perceiver_exporters.targets.target import TARGETS  # noqa: E402
from perceiver_runtime.errors import PerceiverError  # noqa: E402
from perceiver_runtime.tensorrt.api import load_tensorrt  # noqa: E402
from perceiver_runtime.tensorrt.builder.attention import Form  # noqa: E402
from perceiver_runtime.tensorrt.builder.build import BuiltEngine  # noqa: E402

FORMS: tuple[Form, ...] = ("products", "operator")
PAGE = ROOT / "docs" / "tensorrt.md"


@dataclass(frozen=True)
class Row:
    """One model at one precision. `built` of `components` became engines."""

    model: str
    precision: str
    components: int
    built: int
    seconds: float
    megabytes: float
    products: str


def rows(subjects: Iterable[tuple[str, Subject]], precisions: Sequence[str], every_gpu: bool) -> Iterator[Row]:
    """One row per model and precision, for the target's GPUs or for the newest alone."""
    trt, engines = load_tensorrt("tensorrt_rtx"), TARGETS["rtx"].engines
    assert engines is not None
    for name, subject in subjects:
        for precision in precisions:
            capabilities = engines.capabilities(precision) if every_gpu else NEWEST
            with tempfile.TemporaryDirectory() as folder:
                paths = save_graphs(subject.graphs(precision), Path(folder))
                built = [
                    engine
                    for component, path in paths.items()
                    if (engine := _attempt(trt, subject, component, Path(folder, path), capabilities)) is not None
                ]
            seconds, size = sum(e.seconds for e in built), sum(len(engine.plan) for engine in built)
            products = _products(engine.sidecar.products for engine in built)
            yield Row(name, precision, len(subject.made.cut.components), len(built), seconds, size / 1e6, products)


def _attempt(
    trt: ModuleType, subject: Subject, component: str, path: Path, capabilities: tuple[str, ...]
) -> BuiltEngine | None:
    try:
        return subject.build(trt, component, path, capabilities)
    except PerceiverError as error:
        print(error, file=sys.stderr)
        return None


def repeat_table(times: int) -> str:
    """Builds of the patch classifier's components at fp16 that equal the commonest result, for one GPU and for all."""
    trt, target = load_tensorrt("tensorrt_rtx"), TARGETS["rtx"].engines
    assert target is not None
    lines = ["| Component | GPUs | Byte-identical | Results | Bytes |", "|---|---|---|---|---|"]
    subject = small("patch-classifier")
    for name, graph in subject.graphs("fp16").items():
        for capabilities in (NEWEST, target.capabilities("fp16")):
            with tempfile.TemporaryDirectory() as folder:
                ir.save(graph, path := Path(folder, "graph.onnx"))
                plans = Counter(subject.build(trt, name, path, capabilities).plan for _ in range(times))
            sizes = sorted({len(plan) for plan in plans})
            most, size = plans.most_common(1)[0][1], f"{sizes[0]:,}" + (f" to {sizes[-1]:,}" if len(sizes) > 1 else "")
            lines.append(f"| {name} | {len(capabilities)} | {most} of {times} | {len(plans)} | {size} |")
    return "\n".join(lines)


def attention_table(subjects: Iterable[tuple[str, Subject]], precisions: Sequence[str]) -> str:
    """Fused kernels of attention in TensorRT's list of layers, for each model with attention in either form."""
    trt = load_tensorrt("tensorrt_rtx")
    lines = [
        "| Model | Precision | Softmax | Fused as products | Operators | Fused then | Engines MB | MB then |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, subject in subjects:
        for precision in precisions:
            graphs = subject.graphs(precision)
            with tempfile.TemporaryDirectory() as folder:
                both = [
                    tuple(subject.build(trt, each, Path(folder, path), attention=form) for form in FORMS)
                    for each, path in save_graphs(graphs, Path(folder)).items()
                    if any(node.op_type == "Softmax" for node in graphs[each].graph)
                ]
            fused = [sum(built.sidecar.fused_attention or 0 for built in form) for form in zip(*both, strict=True)]
            sizes = [sum(len(built.plan) for built in form) for form in zip(*both, strict=True)]
            operators = [built.operators for _, built in both]
            replaced = sum(len(each.replaced) for each in operators)
            total = replaced + sum(len(each.kept) for each in operators)
            megabytes = " | ".join(f"{size / 1e6:.1f}" for size in sizes)
            lines.append(f"| {name} | {precision} | {total} | {fused[0]} | {replaced} | {fused[1]} | {megabytes} |")
            print(lines[-1], *operators, sep="\n    ", file=sys.stderr, flush=True)
    return "\n".join(lines)


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    lines = [
        "| Model | Precision | Components built | Seconds | Engines MB | Matrix products |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        built = f"{r.built} of {r.components}"
        lines.append(f"| {r.model} | {r.precision} | {built} | {r.seconds:.1f} | {r.megabytes:.1f} | {r.products} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def joined(page: Path, made: str) -> str:
    """The page's table of released sizes, with the rows of `made` in it: each model and precision once, in order."""
    known = page.read_text(encoding="utf-8").split("<!-- released -->\n")[1].split("<!-- end of released -->")[0]
    tables = [[line for line in text.splitlines() if line.startswith("|")] for text in (known, made)]
    rows = {tuple(line.split(" | ")[:2]): line for lines in tables for line in lines[2:]}
    models = dict.fromkeys(model for model, _ in rows)
    ordered = [row for model in models for (name, _), row in rows.items() if name == model]
    return "\n".join([*tables[1][:2], *ordered])


def replace_section(page: Path, name: str, text: str) -> None:
    """Put `text` between the page's markers of that name."""
    before, rest = page.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")
    _, after = rest.split(f"<!-- end of {name} -->")
    page.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- end of {name} -->{after}", encoding="utf-8")


def _products(counts: Iterable[object]) -> str:
    total: dict[str, int] = {}
    for found in counts:
        for kind, count in dict(found).items():  # type: ignore[call-overload]
            total[kind] = total.get(kind, 0) + count
    return ", ".join(f"{count} {kind}" for kind, count in sorted(total.items()))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--released", nargs="+", metavar="NAME")
    parser.add_argument("--precision", nargs="+", default=["fp32", "fp16", "int8"], metavar="P")
    parser.add_argument("--repeat", type=int, metavar="N")
    parser.add_argument("--attention", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.strftime("%Y-%m-%d")
    if options.repeat:
        name, text = "repeat", repeat_table(options.repeat)
    elif options.attention:
        models = ((family, small(family)) for family in SMALL)
        name, text = "attention", attention_table(models, [p for p in options.precision if p != "int8"])
    elif options.released:
        subjects = ((name, released(name)) for name in options.released)
        name, text = "released", joined(PAGE, table(rows(subjects, options.precision, every_gpu=True)))
    else:
        subjects = ((family, small(family)) for family in SMALL)
        name, text = "small", table(rows(subjects, options.precision, every_gpu=False))
    version = load_tensorrt("tensorrt_rtx").__version__
    replace_section(PAGE, name, f"TensorRT-RTX {version} on a CPU, {started}:\n\n{text}")


if __name__ == "__main__":
    main()
