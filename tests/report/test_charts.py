"""Axes and charts: round ticks that cover the values, and drawings that stay within their frame."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_deploy.api.reporting.charts.axes import linear_axis, log_axis
from perceiver_deploy.api.reporting.charts.bars import Bar, bars
from perceiver_deploy.api.reporting.charts.diagram import Edge, Node, diagram
from perceiver_deploy.api.reporting.charts.plots import Line, plot
from perceiver_deploy.api.reporting.charts.svg import NARROW, WIDE, tag
from perceiver_deploy.api.reporting.tables import short, signed


@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=5))
def test_a_logarithmic_axis_covers_its_values_with_few_ticks(values):
    axis = log_axis("", values)
    assert axis.low <= min(values) * (1 + 1e-9)
    assert axis.high >= max(values) * (1 - 1e-9)
    assert 1 <= len(axis.ticks) <= 10
    assert all(0 <= axis.at(value, 0, 100) <= 100 for value in values)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_a_linear_axis_covers_its_values_with_few_ticks(low, span):
    axis = linear_axis("", low, low + span)
    slack = 1e-6 * (abs(low) + span + 1)
    assert axis.low <= low + slack
    assert axis.high >= low + span - slack
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 8


def test_ticks_of_small_and_large_values_are_powers():
    axis = log_axis("", (2e-7, 0.3))
    assert [axis.text(tick) for tick in axis.ticks][:2] == ["10⁻⁷", "10⁻⁶"]
    assert [log_axis("", (0.3, 0.9)).text(tick) for tick in log_axis("", (0.3, 0.9)).ticks] == ["0.2", "0.5", "1"]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_all_points_lie_within_the_frame(width):
    x, y = linear_axis("runs", 0, 8, whole=True), log_axis("", (1e-6, 1e-2))
    charts = (
        plot(width, [Line(tuple((i, 10.0 ** (i - 8)) for i in range(9)), 0, label="a label " * 20)], x, y),
        bars(width, [Bar("a class " * 20, ((3.0, 0), (5.0, 1)), "8", ((2.0, 0), (4.0, 1)), 3.0)], x),
        diagram(
            width,
            [Node(f"step {i} " * 20, "detail", "encode", "x 8", repeats=i == 2) for i in range(9)],
            [Edge(i, i + 1, "latents (batch, 256, 1024)") for i in range(8)] + [Edge(0, i, "x") for i in range(2, 9)],
        ),
    )
    for height, parts in charts:
        text = "".join(parts)
        for name, end in (("x", width), ("x1", width), ("x2", width), ("y", height), ("y1", height), ("y2", height)):
            assert all(0 <= float(at) <= end for at in re.findall(rf' {name}="([^"]*)"', text))


def test_elements_escape_texts_attributes_and_control_characters():
    made = str(tag("text", "<b>\u202e", class_='"><script>'))
    assert made == '<text class="&#34;&gt;&lt;script&gt;">&lt;b&gt;\\u202e</text>'


@pytest.mark.parametrize(
    ("value", "text"), [(0.37712, "0.377"), (1.0, "1.00"), (99.96, "100"), (123.4, "123"), (12345.6, "12,346")]
)
def test_numbers_have_three_digits(value, text):
    assert short(value) == text


def test_differences_have_a_sign_unless_they_round_to_zero():
    assert [signed(value, 2) for value in (0.126, -0.126, -0.001, 0.0)] == ["+0.13", "\u22120.13", "0.00", "0.00"]
