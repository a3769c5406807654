"""The Pareto table of a placement search: JSON in the bundle, and a chart where matplotlib is installed."""

from __future__ import annotations

from pathlib import Path

from perceiver_exporters.precision.placement.search import Pareto
from perceiver_runtime.format import schema, strict_json

TABLE, CHART = "precision/pareto.json", "precision/pareto.svg"


def save_pareto(pareto: Pareto, directory: Path) -> tuple[str, ...]:
    """Write the table, and the chart if matplotlib is installed; return their paths in the bundle."""
    (directory / TABLE).parent.mkdir(exist_ok=True)
    (directory / TABLE).write_text(strict_json.dumps(schema.encode(pareto), indent=1) + "\n", encoding="utf-8")
    return (TABLE, CHART) if draw(pareto, directory / CHART) else (TABLE,)


def load_pareto(directory: Path) -> Pareto | None:
    """The table of a bundle; None if it has none."""
    path = directory / TABLE
    if not path.is_file():
        return None
    return schema.decode(Pareto, strict_json.loads(path.read_bytes()), str(path))


def draw(pareto: Pareto, path: Path) -> bool:
    """Error, points lost, size and time over the layers kept, as SVG; False without matplotlib, an optional package."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return False
    kept = [point.kept for point in pareto.points]
    curves = {
        "error on golden samples (relative L2)": [p.error for p in pareto.points],
        f"points lost (budget {pareto.budget:g})": [max(p.lost.values()) for p in pareto.points],
        "graphs, MB": [p.bytes / 1e6 for p in pareto.points],
        "one row, ms": [p.milliseconds for p in pareto.points],
    }
    with rc_context({"svg.hashsalt": "pareto"}):
        figure = Figure(figsize=(9, 6), layout="constrained")
        for axes, (title, values) in zip(figure.subplots(2, 2).flat, curves.items(), strict=True):
            axes.plot(kept, values, marker="o")
            axes.axvline(pareto.chosen, linestyle=":", color="grey")
            axes.set_title(title)
            axes.set_xlabel("layers kept in FP32")
        figure.savefig(path, format="svg", metadata={"Date": None})
    return True
