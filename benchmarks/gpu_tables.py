"""The tables of docs/results/gpu.md, from the record of benchmarks/gpu/families.py."""

from __future__ import annotations

from collections.abc import Iterator

from table_layouts import Result, ratio, table

BEST = "bundle, fp16"
COLUMNS: dict[str, str] = {
    "eager, fp32": "torch eager, fp32",
    "compiled, fp32": "torch.compile, fp32",
    "one graph, fp32": "plain ONNX Runtime, fp32",
    "bundle, fp32": "bundle, fp32",
    "eager, fp16": "torch eager, fp16",
    "compiled, fp16": "torch.compile, fp16",
    BEST: BEST,
}
"""Column and variant."""


def gpu(result: Result) -> str:
    """Times, speed-ups, parity, and below them the GPU."""
    parts = (times(result), speedups(result), parity(result), "\n".join(failures(result)))
    gpu = ", ".join(f"{key} {value}" if key != "name" else value for key, value in result["gpu"].items())
    return "\n\n".join(filter(None, (*parts, f"{gpu}.")))


def times(result: Result) -> str:
    """Milliseconds."""
    rows = []
    for model, found in result["models"].items():
        known = {row["variant"]: f"{row['milliseconds']:.3g}" for row in found["rows"]}
        rows.append((model, *(known.get(variant, "not measured") for variant in COLUMNS.values())))
    return table(("Milliseconds", *COLUMNS), rows)


def speedups(result: Result) -> str:
    """Of the FP16 bundle over PyTorch in FP16; what its form of attention and the copies from the host make of it."""
    rows = []
    for model, found in result["models"].items():
        known = {row["variant"]: row for row in found["rows"]}
        if BEST not in known:
            continue
        ratios = known[BEST]["ratios"]
        other, host = (known.get(f"{BEST}, {form}") for form in ("attention as products", "from the host"))
        rows.append(
            (
                model,
                ratio(ratios.get("torch eager, fp16")),
                ratio(ratios.get("torch.compile, fp16")),
                *(f"{each['milliseconds']:.3g}" if each else "not measured" for each in (other, host)),
                found["cuda_graphs"]["fp16"],
            )
        )
    columns = (
        "fp16 bundle",
        "over eager",
        "over compiled",
        "attention as products, ms",
        "from the host, ms",
        "CUDA graphs",
    )
    return table(columns, rows)


def parity(result: Result) -> str:
    """Of the pipeline's first output against FP64, and of the tensor of a bundle that is nearest to its tolerance."""
    rows = []
    for model, found in result["models"].items():
        known = {row["variant"]: row["relative_l2"] for row in found["rows"]}
        for precision in ("fp32", "fp16"):
            checked = found["parity"][precision]
            worst = checked["worst"]
            share = worst["rel_l2"] / worst["tolerance"] if worst["tolerance"] else 0.0
            errors = (known.get(f"{by}, {precision}") for by in ("torch eager", "torch.compile", "bundle"))
            shown = (f"{each:.1e}" if each is not None else "not measured" for each in errors)
            passed = "passed" if checked["passed"] else "**failed**"
            rows.append((f"{model}, {precision}", *shown, passed, f"{share:.2f}"))
    return table(("Relative L2", "torch eager", "torch.compile", "bundle", "verify", "Largest error / tolerance"), rows)


def failures(result: Result) -> Iterator[str]:
    """What could not run, and why."""
    for model, found in result["models"].items():
        for variant, reason in found["failed"].items():
            yield f"- {model}: {variant}: not measured ({reason})"
    if result["left_out"]:
        yield f"- not measured: {', '.join(result['left_out'])}"
