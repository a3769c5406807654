"""Size on disk by part of the bundle, and measured memory."""

from __future__ import annotations

from collections.abc import Mapping

from perceiver_deploy.api.reporting.charts.axes import linear_axis
from perceiver_deploy.api.reporting.charts.bars import Bar, bars
from perceiver_deploy.api.reporting.charts.picture import picture
from perceiver_deploy.api.reporting.data import BundleReport, ModelReport
from perceiver_deploy.api.reporting.sections.section import Section
from perceiver_deploy.api.reporting.tables import megabytes, table

PARTS = {"onnx/": "graphs and weights", "engines/": "engines", "golden/": "golden samples"}
OTHER = "records"


def size(model: ModelReport, key: str) -> Section:
    """A bar for each bundle."""
    sizes = {bundle.name: _parts(bundle) for bundle in model.bundles}
    parts = [part for part in (*PARTS.values(), OTHER) if any(each[part] for each in sizes.values())]
    rows = [
        Bar(name, tuple((each[part] / 1e6, i) for i, part in enumerate(parts)), f"{megabytes(sum(each.values()))} MB")
        for name, each in sizes.items()
    ]
    axis = linear_axis("MB on disk", 0, max(sum(each.values()) for each in sizes.values()) / 1e6)
    chart = picture(
        f"{key}-size",
        "Size on disk",
        "; ".join(f"{row.label}: {row.note}" for row in rows),
        lambda width: bars(width, rows, axis),
        table(
            ("bundle:<", *(f"{part}, MB" for part in parts), "all, MB"),
            (
                (n, *(megabytes(e[p]) if e[p] else "0" for p in parts), megabytes(sum(e.values())))
                for n, e in sizes.items()
            ),
        ),
        [(i, name, "block") for i, name in enumerate(parts)],
    )
    return Section("size", "Size and memory", "What the bundle takes on disk.", (chart,), model.commands["card"])


def _parts(bundle: BundleReport) -> Mapping[str, int]:
    found = dict.fromkeys((*PARTS.values(), OTHER), 0)
    for path, size_ in bundle.files.items():
        found[next((name for start, name in PARTS.items() if path.startswith(start)), OTHER)] += size_
    return found
