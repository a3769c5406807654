"""The components of a pipeline from its inputs to its outputs, with the shapes of the values between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from perceiver_deploy.api.reporting.charts.svg import fitted, line, polyline, tag, text

BOX, GAP, ROOM, LANE = 58.0, 44.0, 22.0, 13.0
"""Height of a box, and between two; of each value more between them; width of a lane beside the boxes."""
MAX_LANES = 6


@dataclass(frozen=True)
class Node:
    """A box, from top to bottom: what it is called, a line about it, and marks of it in a corner.

    `stage` is "input", "encode", "decode" or "output"; `repeats` draws a loop.
    """

    name: str
    detail: str
    stage: str
    badge: str = ""
    repeats: bool = False


@dataclass(frozen=True)
class Edge:
    """A value from one box to a later one, by their numbers."""

    start: int
    end: int
    label: str


def diagram(width: float, nodes: Sequence[Node], edges: Sequence[Edge]) -> tuple[float, list[Markup]]:
    """Height and parts of the diagram: values to the next box are arrows, others go around in lanes of their own."""
    far = sorted((e for e in edges if e.end > e.start + 1), key=lambda e: e.end - e.start)
    lanes = {edge: min(i, MAX_LANES - 1) for i, edge in enumerate(far)}
    left = 10.0 + LANE * (max(lanes.values(), default=-1) + 1)
    right = width - (26.0 if any(node.repeats for node in nodes) else 6.0)
    near = [[e for e in edges if e.start == i and e.end == i + 1] for i in range(len(nodes))]
    tops = [6.0]
    for i in range(len(nodes) - 1):
        tops.append(tops[-1] + BOX + GAP + ROOM * max(len(near[i]) - 1, 0))
    parts = [part for edge, lane in lanes.items() for part in _around(edge, lane, left, tops)]
    for i, node in enumerate(nodes):
        parts += _box(node, left, right, tops[i])
        if near[i]:
            parts += _arrow(near[i], left, right, tops[i] + BOX, tops[i + 1])
    return tops[-1] + BOX + 8, parts


def _box(node: Node, left: float, right: float, top: float) -> Iterator[Markup]:
    yield tag("rect", x=left, y=top, width=right - left, height=BOX, rx=6, class_=f"box {node.stage}")
    room = right - left - 24 - 7.2 * len(node.badge)
    yield text(left + 14, top + 24, fitted(node.name, room, 14), class_="name")
    yield text(left + 14, top + 44, fitted(node.detail, right - left - 28), class_="detail")
    if node.badge:
        yield text(right - 14, top + 24, node.badge, anchor="end", class_="badge")
    if node.repeats:
        high, low = top + BOX * 0.25, top + BOX * 0.75
        yield tag("path", d=f"M{right},{low}h8a7,7 0 0,0 7,-7v{high - low + 14}a7,7 0 0,0 -7,-7h-3", class_="flow")
        yield _head((right + 1, high), "left")


def _arrow(edges: Sequence[Edge], left: float, right: float, top: float, bottom: float) -> Iterator[Markup]:
    at = left + 34.0
    yield line((at, top), (at, bottom - 5), "flow")
    yield _head((at, bottom - 1), "down")
    middle = (top + bottom) / 2 - ROOM * (len(edges) - 1) / 2
    for i, edge in enumerate(edges):
        yield text(at + 14, middle + ROOM * i + 4, fitted(edge.label, right - at - 14), class_="shape")


def _around(edge: Edge, lane: int, left: float, tops: Sequence[float]) -> Iterator[Markup]:
    """From the side of one box to the side of another, past those between them."""
    x = left - 8 - LANE * (lane + 0.4)
    start, end = tops[edge.start] + BOX * 0.62, tops[edge.end] + BOX * (0.3 + 0.08 * lane)
    yield polyline(((left, start), (x, start), (x, end), (left - 5, end)), "flow around")
    yield _head((left - 1, end), "right")


def _head(at: tuple[float, float], direction: str) -> Markup:
    x, y = at
    d = {
        "down": f"M{x - 4.5},{y - 7}L{x},{y}L{x + 4.5},{y - 7}z",
        "right": f"M{x - 7},{y - 4.5}L{x},{y}L{x - 7},{y + 4.5}z",
        "left": f"M{x + 7},{y - 4.5}L{x},{y}L{x + 7},{y + 4.5}z",
    }[direction]
    return tag("path", d=d, class_="head")
