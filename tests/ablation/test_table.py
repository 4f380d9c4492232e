import csv
import io
import json
from pathlib import Path

import pytest

from recmerge.ablation.graph import Cell, Graph, Outcome
from recmerge.ablation.table import CHANCE, Row, as_csv, as_markdown, build_rows, difference_cells, shown_cells


@pytest.fixture
def evaluated(tmp_path: Path) -> tuple[Graph, dict[str, Outcome]]:
    """Three systems: a baseline, a better one, one whose training failed."""
    graph = Graph()
    graph.add(Cell("train", "bad", ("train", "bad")))
    graph.add(Cell("infer", "t-base", ("infer",), labels={"system": "base | one"}))
    graph.add(Cell("infer", "t-better", ("infer",), labels={"system": "better"}))
    graph.add(Cell("infer", "t-bad", ("infer",), needs=("train bad",), labels={"system": "bad"}))
    wants = ("infer t-base", "infer t-better", "infer t-bad")
    graph.add(Cell("eval", "e", ("eval",), wants=wants, labels={"target": "toys", "point": ""}))
    metrics = {
        "n_users": 1200,
        "chance": {"ndcg@1": 1 / 30, "mrr": 0.133},
        "runs": {
            "t-base": {"n_users": 1200, "metrics": {"ndcg@1": {"value": 0.25, "ci95": [0.2, 0.3]}, "mrr": {"value": 0.5, "ci95": [0.4, 0.6]}}},
            "t-better": {"n_users": 1200, "metrics": {"ndcg@1": {"value": 0.375, "ci95": [0.3, 0.45]}, "mrr": {"value": 0.5, "ci95": [0.4, 0.6]}}},
        },
        "comparisons": [
            {"run": "t-better", "metric": "ndcg@1", "difference": 0.125, "ci95": [0.1, 0.15], "p": 0.001, "p_holm": 0.001},
            {"run": "t-better", "metric": "mrr", "difference": 0.0, "ci95": [-0.01, 0.01], "p": 1.0, "p_holm": 1.0},
        ],
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    outcomes = {
        "train bad": Outcome("failed", error="error[GATE]: loss is NaN"),
        "infer t-base": Outcome("done", result={"name": "t-base"}),
        "infer t-better": Outcome("already done", result={"name": "t-better"}),
        "infer t-bad": Outcome("skipped", error="'train bad' failed"),
        "eval e": Outcome("done", result={"run_dir": str(tmp_path)}),
    }
    return graph, outcomes


def test_rows_hold_the_figures_the_failure_and_chance(evaluated: tuple[Graph, dict[str, Outcome]]):
    rows = build_rows(*evaluated, baseline="base | one")
    assert [(r.system, r.state) for r in rows] == [("base | one", "ok"), ("better", "ok"), ("bad", "failed: train bad"), (CHANCE, "ok")]
    assert rows[0].is_baseline
    assert rows[1].differences["ndcg@1"]["difference"] == 0.125
    assert rows[3].metrics["ndcg@1"] == {"value": 1 / 30}


def test_a_failed_evaluation_leaves_rows_that_say_so(evaluated: tuple[Graph, dict[str, Outcome]]):
    graph, outcomes = evaluated
    outcomes["eval e"] = Outcome("failed", error="x")
    states = [r.state for r in build_rows(graph, outcomes, None)]
    assert states == ["failed: eval e", "failed: eval e", "failed: train bad"]


def test_csv_holds_every_figure_in_full(evaluated: tuple[Graph, dict[str, Outcome]]):
    rows = list(csv.DictReader(io.StringIO(as_csv(build_rows(*evaluated, baseline="base | one")))))
    assert [r["system"] for r in rows] == ["base | one", "better", "bad", CHANCE]
    better = rows[1]
    assert (better["ndcg@1"], better["ndcg@1_low"], better["ndcg@1_high"]) == ("0.375", "0.3", "0.45")
    assert (better["ndcg@1_difference"], better["ndcg@1_p"], better["users"]) == ("0.125", "0.001", "1200")
    assert (rows[2]["state"], rows[2]["ndcg@1"]) == ("failed: train bad", "")
    assert float(rows[3]["ndcg@1"]) == 1 / 30
    assert rows[0]["is_baseline"] == "True"


def test_shown_cells_are_rounded_and_of_one_width(evaluated: tuple[Graph, dict[str, Outcome]]):
    columns, cells = shown_cells(build_rows(*evaluated, baseline="base | one"), ["ndcg@1", "mrr"])
    assert columns == ["system", "users", "ndcg@1 [95 %]", "mrr", "ndcg@1 - baseline [95 %], p (Holm)"]
    assert cells[0] == ["base | one", "1,200", "0.2500 [0.2000, 0.3000]", "0.5000", "baseline"]
    assert cells[1][-1] == "+0.1250 [+0.1000, +0.1500], 0.0010"
    assert cells[2] == ["bad", "", "failed: train bad", "", ""]
    assert cells[3] == [CHANCE, "1,200", "0.0333", "0.1330", ""]


def test_differences_leave_out_who_was_not_compared(evaluated: tuple[Graph, dict[str, Outcome]]):
    columns, cells = difference_cells(build_rows(*evaluated, baseline="base | one"), ["ndcg@1", "mrr"])
    assert columns == ["system", "ndcg@1 [95 %], p (Holm)", "mrr [95 %], p (Holm)"]
    assert cells == [["better", "+0.1250 [+0.1000, +0.1500], 0.0010", "+0.0000 [-0.0100, +0.0100], 1.0000"]]


def test_markdown_cells_cannot_break_the_table(evaluated: tuple[Graph, dict[str, Outcome]]):
    text = as_markdown("A title", build_rows(*evaluated, baseline="base | one"), "A note.")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4
    assert table[2].startswith("| base \\| one |")
    assert text.endswith("A note.\n")


def test_targets_and_settings_show_only_where_they_vary():
    figures = {"ndcg@1": {"value": 0.5, "ci95": [0.4, 0.6]}}
    one = Row("toys", "", "a", metrics=figures)
    assert shown_cells([one], ["ndcg@1"])[0] == ["system", "users", "ndcg@1 [95 %]"]
    other = Row("sports", "seed=1", "a", metrics=figures)
    assert shown_cells([one, other], ["ndcg@1"])[0] == ["system", "target", "settings", "users", "ndcg@1 [95 %]"]
