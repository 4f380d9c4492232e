import math
import re
from xml.etree import ElementTree

import pytest

from recmerge.evaluation.report.charts import Bar, Line, Reference, bar_chart, nice_ticks, shortened, tick_text
from recmerge.evaluation.report.lines import line_chart


def parts(svg: str, tag: str, kind: str) -> list[ElementTree.Element]:
    """Parse (so that bad markup fails) and find elements by tag and class."""
    return [e for e in ElementTree.fromstring(svg).iter(tag) if kind in e.get("class", "").split()]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.05, 0.02, [-0.06, -0.04, -0.02, 0, 0.02]),
        (0, 30, [0, 5, 10, 15, 20, 25, 30]),
        (2, 2, [2, 2.2, 2.4, 2.6, 2.8, 3]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("value", "step", "text"), [(0.2, 0.1, "0.2"), (0.05, 0.025, "0.050"), (1500, 500, "1,500"), (0, 0.25, "0.00"), (5, 2.5, "5.0")])
def test_tick_text(value: float, step: float, text: str) -> None:
    assert tick_text(value, step) == text


def test_bars_start_at_zero_and_keep_their_proportion() -> None:
    svg = bar_chart([Bar("a", 0.4), Bar("b", 0.1, emphasis=True), Bar("c", 0.0)], "HR@5")
    bars = parts(svg, "rect", "bar")
    widths = [float(b.get("width")) for b in bars]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.5)
    assert widths[2] == 0.5  # a trace, so that it is seen
    assert len({b.get("x") for b in bars}) == 1
    assert "accent" in bars[1].get("class")


def test_negative_bars_end_where_positive_ones_start() -> None:
    svg = bar_chart([Bar("up", 0.02, 0.01, 0.03), Bar("down", -0.04, -0.05, -0.03)], "difference", decimals=2, signed=True)
    up, down = parts(svg, "rect", "bar")
    assert float(down.get("x")) + float(down.get("width")) == pytest.approx(float(up.get("x")), abs=0.2)
    assert "+0.02  [+0.01, +0.03]" in svg
    assert "-0.04  [-0.05, -0.03]" in svg


def test_whiskers_and_references_stay_inside() -> None:
    svg = bar_chart([Bar("a", 0.1, 0.05, 0.9)], "x", [Reference("chance", 1 / 30), Reference("popularity", 0.05), Reference("far", 1.2)])
    ends = [float(v) for v in re.findall(r"[MH](-?[\d.]+)", parts(svg, "path", "whisker")[0].get("d"))]
    assert 0 < min(ends) < max(ends) < 960
    assert [t.text for t in parts(svg, "text", "ref-name")] == ["far 1.200", "popularity 0.050", "chance 0.033"]
    heights = [t.get("y") for t in parts(svg, "text", "ref-name")]
    assert heights[0] == heights[1]  # far apart: one level
    assert heights[1] != heights[2]  # close: their names would overlap


def test_no_bars_and_values_that_are_no_numbers() -> None:
    assert parts(bar_chart([], "x"), "rect", "bar") == []
    svg = bar_chart([Bar("a", math.nan)], "x")
    assert parts(svg, "rect", "bar") == []
    assert "n/a" in svg


def test_labels_are_text() -> None:
    svg = bar_chart([Bar('<b>&"[red]\x1b[0m', 1.0)], "<axis>", [Reference("</svg>", 0.5)])
    ElementTree.fromstring(svg)
    assert "<b>" not in svg
    assert "\x1b" not in svg
    assert "[red]" in svg


def test_long_labels_are_cut_and_told_whole() -> None:
    assert shortened("x" * 60, 10) == "xxxxxx…xxx"
    assert shortened("short") == "short"
    assert f"<title>{'x' * 60}</title>" in bar_chart([Bar("x" * 60, 1.0)], "x")


def test_a_missing_value_interrupts_a_line() -> None:
    svg = line_chart([Line("loss", [1, 2, 3, 4], [3.0, math.nan, 2.0, 1.0])], "step", "loss")
    drawn = [p.get("d") for p in parts(svg, "path", "s0")]
    assert drawn[1].count("M") == 2  # the first is the legend's
    assert drawn[1].count("L") == 1


def test_lines_fill_the_width_and_start_at_zero() -> None:
    svg = line_chart([Line("a", [10, 20], [5.0, 10.0]), Line("ref", [10, 20], [0.0, 0.0], dashed=True)], "x", "y")
    line = parts(svg, "path", "s0")[1].get("d")
    assert re.fullmatch(r"M72\.0 [\d.]+L936\.0 [\d.]+", line)
    axis = float(parts(svg, "line", "axis")[0].get("y1"))
    zero = parts(svg, "path", "reference")[1].get("d")
    assert zero.split()[-1] == f"{axis:.1f}"


def test_no_lines() -> None:
    ElementTree.fromstring(line_chart([], "x", "y"))
    ElementTree.fromstring(line_chart([Line("one", [1], [1.0])], "x", "y"))
