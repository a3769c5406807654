"""The tables of docs/performance.md and docs/models.md, from benchmarks/results/*.json.

    python benchmarks/tables.py [--check]

Each table lies between markers `<!-- benchmarks/tables.py: NAME begin -->` and `end`; one without a result says that
it was not measured. `--check` writes nothing and fails if a document is not what the results give.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENTS = tuple(ROOT / "docs" / name for name in ("performance.md", "models.md"))
RESULTS = ROOT / "benchmarks" / "results"
Result = Mapping[str, Any]
ABSENT = "Not measured."


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, rule, *rows))


def ratio(value: Result | None) -> str:
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})" if value else ""


def peers(result: Result) -> str:
    return compared(
        result["rows"], ("ms", "Relative L2"), lambda row: (f"{row['milliseconds']:.4g}", f"{row['relative_l2']:.1e}")
    )


def flow(result: Result) -> str:
    return compared(
        result["rows"], ("s", "Peak RSS, GB"), lambda row: (f"{row['seconds']:.1f}", f"{row['peak_bytes'] / 1e9:.2f}")
    )


def compared(rows: Sequence[Result], columns: Sequence[str], cells: Callable[[Result], Sequence[str]]) -> str:
    """Each variant with its own figures, and its speed-up over each reference."""
    fullest = sorted(rows, key=lambda row: -len(row["ratios"]))  # a reference has no ratio to itself
    references = list(dict.fromkeys(name for row in fullest for name in row["ratios"]))
    return table(
        ("Variant", *columns, *(f"Speed-up over {name}" for name in references)),
        [(row["variant"], *cells(row), *(ratio(row["ratios"].get(name)) for name in references)) for row in rows],
    )


def decode(result: Result) -> str:
    once, again, eager = (result[name] for name in ("seconds_once", "seconds_again", "seconds_again_eager"))
    scaled = f"{result['measured_chunks']} of {result['chunks']} chunks measured"
    return table(
        ("Complete output", "TFLOP", "s", "Time / encoded once"),
        [
            ("encoded once, decoded in chunks", f"{result['tflop_once']:.2f}", f"{once:.1f}", "1.00"),
            (
                f"encoded again for each chunk ({scaled})",
                f"{result['tflop_again']:.1f}",
                f"{again:.0f}",
                f"{again / once:.2f}",
            ),
            (  # the model as it is, without the rules that made the bundle's graphs smaller
                f"the same in torch eager ({scaled})",
                "not counted",
                f"{eager:.0f}",
                f"{eager / once:.2f}",
            ),
        ],
    )


def small(result: Result) -> str:
    return table(
        ("Model", "Precision", "Components", "Session, ms", "torch eager, ms", "Speed-up", "Overhead, µs"),
        [
            (
                r["model"],
                r["precision"],
                str(r["components"]),
                f"{r['session_ms']:.3f}",
                f"{r['eager_ms']:.3f}",
                ratio(r["speedup"]),
                f"{r['overhead_us']:.0f}",
            )
            for r in result["rows"]
        ],
    )


def loops(result: Result) -> str:
    return table(
        ("Model", "Precision", "Repetitions", "Looped, ms", "Unrolled, ms", "Unrolled / looped", "Relative L2"),
        [
            (
                r["model"],
                r["precision"],
                str(r["repeats"]),
                f"{r['looped_ms']:.4g}",
                f"{r['unrolled_ms']:.4g}",
                ratio(r["ratio"]),
                f"{r['error']:.1e}",
            )
            for r in result["rows"]
        ],
    )


def forms(result: Result) -> str:
    return table(
        ("Activations x weights", "Backend", "ms", "FP32 / this", "Relative L2 to FP32", "Kernel"),
        [
            (r["form"], r["backend"], f"{r['milliseconds']:.1f}", ratio(r["ratio"]), f"{r['error']:.1e}", r["kernel"])
            for r in result["rows"]
        ],
    )


def integers(result: Result) -> str:
    """Speed of one block in every variant, and what each component of small models loses."""
    block = f"{result['layers']} layers of 1280, 256 latents"
    timed = table(
        (block, "ms", "FP32 / this", "Relative L2 to FP32", "Attention's share of kernel time"),
        [
            (
                r["variant"],
                f"{r['milliseconds']:.1f}",
                ratio(r["ratio"]),
                f"{r['error']:.1e}",
                f"{r['attention']:.0%}",
            )
            for r in result["speed"]
        ],
    )
    variants = list(result["errors"][0]["errors"])
    lost = table(
        ("Relative L2 to FP64", *variants),
        [(f"{r['model']}, {r['component']}", *(f"{r['errors'][v]:.1e}" for v in variants)) for r in result["errors"]],
    )
    return f"{timed}\n\n{lost}"


def convolutions(result: Result) -> str:
    return table(
        ("Convolution", "Kernel", "ms", "FP32 / this"),
        [(r["size"], r["form"], f"{r['milliseconds']:.3f}", ratio(r["ratio"])) for r in result["rows"]],
    )


def start(result: Result) -> str:
    return table(
        (
            "Variant",
            "Open, s",
            "First answer, s",
            "Weights packed, s",
            "Peak RSS, MB",
            "Open / plain's",
            "Answer / plain's",
        ),
        [
            (
                r["variant"],
                f"{r['opened']:.2f}",
                f"{r['answered']:.2f}",
                f"{r['packed']:.2f}",
                f"{r['peak'] / 1e6:,.0f}",
                ratio(r["opening"]),
                ratio(r["answering"]),
            )
            for r in result["rows"]
        ],
    )


def threads(result: Result) -> str:
    return table(
        ("Setting", "Callers", "ms per run", "Speed-up over one caller"),
        [(r["setting"], str(r["callers"]), f"{r['milliseconds']:.3f}", ratio(r["ratio"])) for r in result["rows"]],
    )


def sized(result: Result) -> str:
    """One thread against all cores, by the size of the model."""
    return table(
        ("Model, largest component", "Precision", "1 thread, ms", "All cores, ms", "All cores / 1 thread"),
        [
            (
                f"{r['model']}, {r['largest_mflop']:.1f} MFLOP",
                r["precision"],
                f"{r['one']:.3f}",
                f"{r['every']:.3f}",
                ratio(r["ratio"]),
            )
            for r in result["rows"]
        ],
    )


def layers(result: Result) -> str:
    """Attention of one layer as products and as one operator."""
    kinds = ("products", "operator")
    return table(
        (
            "Layer of",
            "Precision",
            *(f"{kind}, ms" for kind in kinds),
            "products / operator",
            *(f"{kind}, MB" for kind in kinds),
            "Relative L2",
        ),
        [
            (
                r["model"],
                r["precision"],
                *(f"{r['milliseconds'][kind]:.1f}" for kind in kinds),
                ratio(r["ratio"]),
                *(f"{r['peak_bytes'][kind] / 1e6:,.0f}" for kind in kinds),
                f"{r['relative_l2']:.0e}",
            )
            for r in result["rows"]
        ],
    )


def memory(result: Result) -> str:
    """What a session needs."""
    return table(
        ("Model", "Inputs and queries", "Forecast, MB", "Peak RSS, MB", "Forecast / peak"),
        [
            (
                f"`{r['model']}`",
                r["kind"],
                f"{r['forecast'] / 1e6:,.0f}",
                f"{r['peak'] / 1e6:,.0f}" if r["peak"] else f"more than {r['allowed'] / 1e6:,.0f}",
                f"{r['forecast'] / r['peak']:.2f}" if r["peak"] else "",
            )
            for r in result["rows"]
        ],
    )


TABLES: dict[str, Callable[[Result], str]] = {
    "peers-language-perceiver": peers,
    "peers-language-perceiver-vnni": peers,
    "peers-vision-perceiver-conv": peers,
    "peers-vision-perceiver-conv-vnni": peers,
    "peers-vision-perceiver-fourier": peers,
    "peers-optical-flow": flow,
    "multimodal-decode": decode,
    "overhead": small,
    "looping": loops,
    "cold-start-language-perceiver": start,
    "threads": threads,
    "threads-limit": sized,
    "integer-forms": forms,
    "integers": integers,
    "convolution-forms": convolutions,
    "attention-form": layers,
    "memory": memory,
}


def made(name: str) -> str:
    """The table and what it holds for."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return ABSENT
    result = json.loads(path.read_text(encoding="utf-8"))
    machine, versions = result["machine"], ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    rounds = f"{result['rounds']} rounds, " if "rounds" in result else ""
    stated = (
        f"{machine['name']} ({', '.join(machine['instructions'])}), load {machine['load']} when it was recorded; "
        f"{rounds}{result['threads']} threads; {versions}; {result['date']}."
    )
    return f"{TABLES[name](result)}\n\n{stated}"


def filled(text: str) -> str:
    """The document with every table as the results give it."""
    for name in TABLES:
        begin, end = (f"<!-- benchmarks/tables.py: {name} {side} -->" for side in ("begin", "end"))
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text = pattern.sub(lambda _, n=name, b=begin, e=end: f"{b}\n{made(n)}\n{e}", text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        if check and filled(text) != text:
            sys.exit(f"{document}: not what the results give; run python benchmarks/tables.py")
        if not check:
            document.write_text(filled(text), encoding="utf-8")


if __name__ == "__main__":
    main()
