"""A grid over one number is drawn as curves."""

import pytest

from recmerge.ablation.curves import setting_curves
from recmerge.ablation.table import CHANCE, Row


def row(system: str, value: object, seeds: int = 1, target: str = "toys", key: str = "train.buyers.toys") -> Row:
    figure = {"value": 0.1, "ci95": [0.05, 0.2]}
    return Row(target, "x", system, metrics={"ndcg@1": figure}, settings={key: value}, seeds=seeds)


def test_one_line_per_system_in_order_of_the_setting() -> None:
    (chart,) = setting_curves([row("a", 1000), row("b", 300), row("a", 300), row("b", 1000), row(CHANCE, 300)], "ndcg@1")
    assert [(line.label, line.xs) for line in chart.lines] == [("a", [300.0, 1000.0]), ("b", [300.0, 1000.0])]
    assert chart.lines[0].spans == [(0.05, 0.2)] * 2
    assert not chart.log_x
    assert "whisker" in chart.svg
    assert "NaN" not in chart.svg


def test_wide_ranges_are_drawn_by_ratios() -> None:
    (chart,) = setting_curves([row("a", v) for v in (300, 1000, 3000, 30000)], "ndcg@1")
    assert chart.log_x
    assert all(f">{tick}<" in chart.svg for tick in ("300", "1,000", "3,000", "30,000"))


def test_rows_over_all_seeds_stand_for_them() -> None:
    rows = [row("a", v, seeds) for v in (1, 2) for seeds in (1, 1, 2)]
    (chart,) = setting_curves(rows, "ndcg@1")
    assert chart.lines[0].xs == [1.0, 2.0]
    assert chart.note.startswith("Mean of 2 seeds")


def test_targets_have_charts_of_their_own() -> None:
    charts = setting_curves([row("a", v, target=t) for v in (1, 2) for t in ("toys", "sports")], "ndcg@1")
    assert [c.title for c in charts] == ["NDCG@1 on sports by train.buyers.toys", "NDCG@1 on toys by train.buyers.toys"]


@pytest.mark.parametrize(
    "rows", [[], [row("a", 1), row("a", "cat")], [row("a", 1), row("a", 2, key="other")], [row("a", True), row("a", False)], [row("a", 3)]]
)
def test_no_curve_where_there_is_no_one_number(rows: list[Row]) -> None:
    assert setting_curves(rows, "ndcg@1") == []
