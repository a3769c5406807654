"""Table layouts: one function for each kind of record in benchmarks/results, from the record to a Markdown table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
"""A record: the contents of one JSON file."""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, rule, *rows))


def ratio(value: Result | None) -> str:
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})" if value else ""


def peers(result: Result) -> str:
    return compared(
        result["rows"], ("ms", "Relative L2"), lambda row: (f"{row['milliseconds']:.4g}", f"{row['relative_l2']:.1e}")
    )


def optical_flow(result: Result) -> str:
    return compared(
        result["rows"], ("s", "Peak RSS, GB"), lambda row: (f"{row['seconds']:.1f}", f"{row['peak_bytes'] / 1e9:.2f}")
    )


def compared(rows: Sequence[Result], columns: Sequence[str], cells: Callable[[Result], Sequence[str]]) -> str:
    """One row per variant: its own columns, then its speed-up over each reference."""
    fullest = sorted(rows, key=lambda row: -len(row["ratios"]))  # a reference has no ratio to itself
    references = list(dict.fromkeys(name for row in fullest for name in row["ratios"]))
    return table(
        ("Variant", *columns, *(f"Speed-up over {name}" for name in references)),
        [(row["variant"], *cells(row), *(ratio(row["ratios"].get(name)) for name in references)) for row in rows],
    )


def multimodal_decode(result: Result) -> str:
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
            (  # the model as it is, without rewrite rules
                f"the same in torch eager ({scaled})",
                "not counted",
                f"{eager:.0f}",
                f"{eager / once:.2f}",
            ),
        ],
    )


def overhead(result: Result) -> str:
    return table(
        (
            "Model",
            "Precision",
            "Components",
            "Session, ms",
            "torch eager, ms",
            "Speed-up",
            "Speed-up over FP32",
            "Overhead, µs",
        ),
        [
            (
                r["model"],
                r["precision"],
                str(r["components"]),
                f"{r['session_ms']:.3f}",
                f"{r['eager_ms']:.3f}",
                ratio(r["speedup"]),
                ratio(r.get("over_fp32")),
                f"{r['overhead_us']:.0f}",
            )
            for r in result["rows"]
        ],
    )


def looping(result: Result) -> str:
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


def integer_forms(result: Result) -> str:
    return table(
        ("Activations x weights", "Backend", "ms", "FP32 / this", "Relative L2 to FP32", "Kernel"),
        [
            (r["form"], r["backend"], f"{r['milliseconds']:.1f}", ratio(r["ratio"]), f"{r['error']:.1e}", r["kernel"])
            for r in result["rows"]
        ],
    )


def integers(result: Result) -> str:
    """Two tables: speed of one block in every variant; error of each component of the shipped models."""
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


def convolution_forms(result: Result) -> str:
    return table(
        ("Convolution", "Kernel", "ms", "FP32 / this"),
        [(r["size"], r["form"], f"{r['milliseconds']:.3f}", ratio(r["ratio"])) for r in result["rows"]],
    )


def cold_start(result: Result) -> str:
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
        ("Setting", "Callers", "ms per run", "Throughput / that of one caller"),
        [(r["setting"], str(r["callers"]), f"{r['milliseconds']:.3f}", ratio(r["ratio"])) for r in result["rows"]],
    )


def threads_by_size(result: Result) -> str:
    """One thread against all cores, by model size."""
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


def attention_form(result: Result) -> str:
    """Attention of one layer as products and as one fused operator."""
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
    """Memory estimate of a session beside its measured peak."""
    return table(
        ("Model", "Inputs and queries", "Estimate, MB", "Peak RSS, MB", "Estimate / peak"),
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


def calibration_memory(result: Result) -> str:
    """Peak memory of a calibration by its number of samples."""
    least = result["rows"][0]["peak"]
    return table(
        ("Samples", "Peak RSS, MB", "Times the first", "Seconds"),
        [
            (f"{r['samples']:,}", f"{r['peak'] / 1e6:,.1f}", f"{r['peak'] / least:.3f}", f"{r['seconds']:.1f}")
            for r in result["rows"]
        ],
    )


def noise(result: Result) -> str:
    measured = (f"{result['model']} on this machine", result["rounds"], result["repetitions"], result, "not measured")
    simulated = [
        (f"simulated: {r['noise']}", r["rounds"], result["simulated_repetitions"], r, str(r["bootstrap_contain_1"]))
        for r in result["simulated"]
    ]
    columns = "Noise", "Rounds", "Comparisons", "Contain 1", "Contain 1, bootstrap", "Slowdown of a tenth detected"
    return table(
        columns,
        [
            (name, str(rounds), f"{number:,}", str(r["contain_1"]), bootstrap, str(r["slowdown_detected"]))
            for name, rounds, number, r, bootstrap in (measured, *simulated)
        ],
    )


TABLES: dict[str, Callable[[Result], str]] = {
    "peers-language-perceiver": peers,
    "peers-language-perceiver-vnni": peers,
    "peers-vision-perceiver-conv": peers,
    "peers-vision-perceiver-conv-vnni": peers,
    "peers-vision-perceiver-fourier": peers,
    "peers-vision-perceiver-fourier-vnni": peers,
    "peers-optical-flow": optical_flow,
    "peers-optical-flow-vnni": optical_flow,
    "multimodal-decode": multimodal_decode,
    "overhead": overhead,
    "looping": looping,
    "cold-start-language-perceiver": cold_start,
    "threads": threads,
    "threads-limit": threads_by_size,
    "integer-forms": integer_forms,
    "integers": integers,
    "convolution-forms": convolution_forms,
    "attention-form": attention_form,
    "memory": memory,
    "calibration-memory": calibration_memory,
    "noise": noise,
}
