import re
import xml.etree.ElementTree as ET

import pytest

from recmerge.evaluation.report import HeatMap, render_report
from recmerge.evaluation.report.heat import heat_map, strength


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.0, 0.0, 1.0, 0.0),
        (0.5, 0.0, 1.0, 0.5),
        (2.0, 0.0, 1.0, 1.0),
        (-0.3, 0.0, 1.0, 0.0),
        (-0.5, -1.0, 1.0, -0.5),
        (0.25, -1.0, 0.5, 0.5),
        (-9.0, -1.0, 1.0, -1.0),
        (3.0, 2.0, 4.0, 0.5),
        (1.0, 1.0, 1.0, 0.0),
    ],
)
def test_strength(value: float, low: float, high: float, expected: float) -> None:
    assert strength(value, low, high) == expected


def test_cells_carry_their_numbers_and_names() -> None:
    svg = ET.fromstring(heat_map(["layer 0", "layer 1"], ["q", "<k>"], [[0.25, None], [-1.0, float("nan")]], -1.0, 1.0))
    texts = ["".join(t.itertext()) for t in svg.iter("text")]
    assert texts[:2] == ["qq", "<k><k>"]
    assert [t for t in texts if re.fullmatch(r"-?\d\.\d\d", t)] == ["0.25", "-1.00"]
    cells = [r for r in svg.iter("rect") if "fill-opacity" in r.attrib]
    assert [(r.get("class"), r.get("fill-opacity")) for r in cells] == [("cell", "0.25"), ("cell minus", "1.00")]
    titles = [t.text for t in svg.iter("title")]
    assert "layer 0 <k>: none" in titles
    assert "layer 1 <k>: none" in titles


def test_narrow_cells_have_no_numbers_and_stay_inside() -> None:
    svg = ET.fromstring(heat_map(["a"], [f"expert {i}" for i in range(100)], [[0.5] * 100], 0.0, 1.0))
    assert not [t for t in svg.iter("text") if t.get("class", "").startswith("cell-text")]
    assert max(float(r.get("x", 0)) + float(r.get("width", 0)) for r in svg.iter("rect")) <= 960


def test_a_map_without_rows_is_drawn() -> None:
    assert ET.fromstring(heat_map([], [], [], 0.0, 1.0)).tag == "svg"


def test_a_section_of_a_page() -> None:
    text = render_report("t", [HeatMap("the map", ["r"], ["c"], [[0.9]], note="what it means")])
    assert text.index("the map</h2>") < text.index("<svg") < text.index("what it means</p>")
