"""Summary tables of README.md and docs/performance.md: the fastest bundle of each precision beside its peers."""

from __future__ import annotations

from collections.abc import Mapping

from table_layouts import Result, ratio, table

PEERS: Mapping[str, str] = {
    "peers-language-perceiver": "`language-perceiver`",
    "peers-language-perceiver-vnni": "`language-perceiver`",
    "peers-vision-perceiver-conv": "`vision-perceiver-conv`",
    "peers-vision-perceiver-conv-vnni": "`vision-perceiver-conv`",
    "peers-vision-perceiver-fourier": "`vision-perceiver-fourier`",
    "peers-optical-flow": "`optical-flow-perceiver`",
}
"""Records that the summaries read, and the model of each."""

PRECISIONS: Mapping[str, str] = {"FP32": "bundle fp32, ", "INT8": "bundle int8"}
"""Name of a group of bundle variants, and how their names begin."""


def performance(results: Mapping[str, Result]) -> str:
    """The fastest bundle of each precision, with its speed-ups and its error."""
    rows = []
    for name, result in results.items():
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
    """Seconds of torch eager, the fastest FP32 peer and the fastest bundle of each precision."""
    rows = []
    for name, result in results.items():
        eager = next(row for row in result["rows"] if row["variant"].endswith("torch eager"))
        peers = [row for row in result["rows"] if is_fp32_peer(row["variant"])]
        times = [eager, min(peers, key=time), *(fastest(result, group) for group in PRECISIONS)]
        rows.append((PEERS[name], processor(result), *(seconds(row) if row else "not measured" for row in times)))
    columns = ("Model", "Processor", "torch eager", "Fastest FP32 runtime")
    return table((*columns, *(f"{group} bundle" for group in PRECISIONS)), rows)


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
