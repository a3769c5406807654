"""Summary tables of README.md and docs/performance.md: the fastest bundle of each precision beside its peers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from table_layouts import Result, ratio, table

PEERS: Mapping[str, str] = {
    "peers-language-perceiver": "`language-perceiver`",
    "peers-language-perceiver-vnni": "`language-perceiver`",
    "peers-vision-perceiver-conv": "`vision-perceiver-conv`",
    "peers-vision-perceiver-conv-vnni": "`vision-perceiver-conv`",
    "peers-vision-perceiver-fourier": "`vision-perceiver-fourier`",
    "peers-vision-perceiver-fourier-vnni": "`vision-perceiver-fourier`",
    "peers-optical-flow": "`optical-flow-perceiver`",
    "peers-optical-flow-vnni": "`optical-flow-perceiver`",
}
"""Records that the summaries read, and the model of each."""

SMALL = "overhead"
"""The record of the shipped small models."""
NOT_MEASURED = "not measured"
PRECISIONS: Mapping[str, str] = {"FP32": "bundle fp32, ", "INT8": "bundle int8"}
"""Name of a group of bundle variants, and how their names begin."""


def performance(results: Mapping[str, Result]) -> str:
    """The fastest bundle of each precision, with its speed-ups and its error."""
    rows = []
    for name, result in released(results):
        eager = next(row for row in result["rows"] if row["variant"].endswith("torch eager"))
        for group in PRECISIONS:
            if (best := fastest(result, group)) is None:
                continue
            error = f"{best['relative_l2']:.1e}" if "relative_l2" in best else "not measured"
            peer = speedup(best, "best peer")
            fp32_peer = speedup(best, "best FP32 peer") or peer  # optical flow has FP32 peers alone
            ratios = (speedup(best, eager["variant"]), fp32_peer, peer)
            rows.append(
                (PEERS[name], processor(result), best["variant"].removeprefix("bundle "), seconds(best), *ratios, error)
            )
    references = ("torch eager", "fastest FP32 peer", "fastest peer, INT8 included")
    speedups = (f"Speed-up over {reference}" for reference in references)
    return table(("Model", "Processor", "Fastest bundle", "s", *speedups, "Relative L2"), rows)


def readme(results: Mapping[str, Result]) -> str:
    """Milliseconds of torch eager, the fastest FP32 peer and the fastest bundles; small models first."""
    rows = [] if (known := results.get(SMALL)) is None else list(small(known))
    for name, result in released(results):
        eager = next(row for row in result["rows"] if row["variant"].endswith("torch eager"))
        peers = [row for row in result["rows"] if is_fp32_peer(row["variant"])]
        exact, integers = (fastest(result, group) for group in PRECISIONS)
        times = [time(row) if row else None for row in (eager, min(peers, key=time), exact, integers)]
        over = f"{time(exact) / time(integers):.1f}" if exact and integers else NOT_MEASURED
        rows.append((PEERS[name], processor(result), *map(milliseconds, times), over))
    columns = ("Model", "Processor", "torch eager", "Fastest FP32 runtime")
    return table((*columns, *(f"{group} bundle" for group in PRECISIONS), "INT8 over FP32"), rows)


def released(results: Mapping[str, Result]) -> Iterator[tuple[str, Result]]:
    """The records of released models."""
    return ((name, result) for name, result in results.items() if name != SMALL)


def small(result: Result) -> Iterator[tuple[str, ...]]:
    """The shipped models, on one thread."""
    rows = {(row["model"], row["precision"]): row for row in result["rows"]}
    for (name, precision), row in rows.items():
        if precision == "int8":
            exact = rows[name, "fp32"]
            times = (exact["eager_ms"] / 1e3, None, exact["session_ms"] / 1e3, row["session_ms"] / 1e3)
            yield f"`{name}`", processor(result), *map(milliseconds, times), ratio(row["over_fp32"])


def milliseconds(found: float | None) -> str:
    """Seconds as milliseconds with three digits."""
    if found is None:
        return NOT_MEASURED
    return f"{1e3 * found:,.0f}" if found >= 0.1 else f"{1e3 * found:.3g}"


def fastest(result: Result, group: str) -> Result | None:
    """The bundle of a precision with the least median; bfloat16 arithmetic counts as no FP32."""
    rows = [row for row in result["rows"] if row["variant"].startswith(PRECISIONS[group])]
    rows = [row for row in rows if group != "FP32" or not row["variant"].endswith("bf16")]
    return min(rows, key=time, default=None)


def is_fp32_peer(variant: str) -> bool:
    """Whether a variant is the plain export in FP32 on another runtime, or torch.compile."""
    return variant in ("plain ONNX Runtime", "plain OpenVINO", "torch.compile")


def time(row: Result) -> float:
    """Median seconds of a row."""
    return row["seconds"] if "seconds" in row else row["milliseconds"] / 1e3


def seconds(row: Result) -> str:
    return f"{time(row):.1f}" if time(row) >= 10 else f"{time(row):.2f}"


def speedup(row: Result, reference: str) -> str:
    """Speed-up over the reference whose name begins so; empty if it was not measured."""
    return next((ratio(value) for name, value in row["ratios"].items() if name.startswith(reference)), "")


def processor(result: Result) -> str:
    return "VNNI" if any("vnni" in name for name in result["machine"]["instructions"]) else "AVX2"


SUMMARIES = {"summary-performance": performance, "summary-readme": readme}
