import re
from xml.etree import ElementTree

import pytest

from recmerge.evaluation.report.graph import Node, lineage_chart

NODES = [Node("d", "sports", "v001", 0), Node("m", "beauty_sports", "v001", 1), Node("t", "beauty_sports", "v002", 2), Node("i", "ranking", "v001", 3)]


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    found = ElementTree.fromstring(svg).iter("rect")
    return [tuple(float(e.get(k)) for k in ("x", "y", "width", "height")) for e in found]


def test_boxes_stand_in_their_columns_and_do_not_overlap() -> None:
    many = [Node(f"{c}-{r}", f"name-{r}" * 3, "v001", c) for c in range(4) for r in range(3)]
    drawn = boxes(lineage_chart(many, [("0-0", "1-1"), ("1-1", "3-2")], ["a", "b", "c", "d"]))
    assert len(drawn) == 12
    for i, (x, y, w, h) in enumerate(drawn):
        for ox, oy, ow, oh in drawn[i + 1 :]:
            assert x + w < ox or ox + ow < x or y + h < oy or oy + oh < y


def test_a_long_arrow_passes_no_box() -> None:
    svg = lineage_chart(NODES, [("d", "m"), ("m", "t"), ("t", "i"), ("d", "i")], ["data", "mix", "train", "infer"])
    long = max((e.get("d") for e in ElementTree.fromstring(svg).iter("path") if e.get("class") == "arrow"), key=len)
    lanes = [float(y) for y in re.findall(r"([\d.]+)H", long)]
    assert len(lanes) == 2  # one lane in each column between
    for y, (_, top, _, height) in zip(lanes, boxes(svg)[1:3], strict=True):
        assert not top <= y <= top + height


@pytest.mark.parametrize("edge", [("m", "d"), ("d", "d"), ("d", "gone")])
def test_arrows_lead_from_left_to_right(edge: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="does not lead"):
        lineage_chart(NODES, [edge], ["data", "mix", "train", "infer"])


def test_empty_columns_take_no_room_and_names_are_text() -> None:
    svg = lineage_chart([Node("a", "<i>[b]", "\x1b[1m", 0), Node("b", "b", "", 3)], [("a", "b")], ["data", "mix", "train", "infer"])
    assert "mix" not in svg
    assert "<i>" not in svg
    assert "\x1b" not in svg
    ElementTree.fromstring(svg)
