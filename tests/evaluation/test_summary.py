from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recmerge.errors import ArtifactError
from recmerge.evaluation.ranks import Ranks
from recmerge.evaluation.summary import Evaluated, compare, gate_failures, per_user_frame, summarise

INF = float("inf")


def evaluated(key: str = "run", better: tuple[float, ...] = (0, 1, 4, INF), tied: tuple[int, ...] = (0, 0, 1, 0)) -> Evaluated:
    n = len(better)
    ranks = Ranks(np.asarray([f"u{i}" for i in range(n)]), np.full(n, 10), np.asarray(better, dtype=float), np.asarray(tied))
    lists = pl.DataFrame({"user_id": ranks.user_id.tolist(), "target": ["a"] * n, "items": [["a", "b"]] * n})
    masks = {"all": np.ones(n, dtype=bool), "tied_last_two": np.arange(n) < 2}
    return Evaluated(key, key, ranks, (1, 3, 5), "abc", masks, lists, malformed=1)


def test_summary_by_hand() -> None:
    block = summarise(evaluated(), 200)
    value = {name: figure["value"] for name, figure in block["metrics"].items()}
    # Ranks 1, 2, 5 or 6, and a miss.
    assert value["ndcg@1"] == 1 / 4
    assert value["hr@5"] == pytest.approx((1 + 1 + 1 / 2 + 0) / 4)
    assert value["mrr"] == pytest.approx((1 + 1 / 2 + (1 / 5 + 1 / 6) / 2 + 0) / 4)
    assert (block["n_users"], block["ties"], block["unranked"], block["malformed"], block["off_list"]) == (4, 1, 1, 1, 0)
    assert block["candidates"] == {"n": 10, "sha256": "abc"}
    assert block["chance"]["ndcg@1"] == pytest.approx(1 / 10)
    # of ten candidates: 9, 8, 4.5 and, for the miss, 0 below the target; places 1, 2, 5.5 and the last
    assert value["auc"] == pytest.approx((9 + 8 + 4.5 + 0) / 9 / 4)
    assert value["mean_rank"] == pytest.approx((1 + 2 + 5.5 + 10) / 4)
    for name, figure in block["metrics"].items():
        low, high = figure["ci95"]
        assert 0 <= low <= figure["value"] <= high <= (10 if name == "mean_rank" else 1)


def test_slices_hold_their_users() -> None:
    block = summarise(evaluated(), 200)["slices"]
    assert block["all"]["metrics"] == summarise(evaluated(), 200)["metrics"]
    assert block["tied_last_two"]["n_users"] == 2
    assert block["tied_last_two"]["metrics"]["ndcg@1"]["value"] == 1 / 2


def test_unknown_candidates_have_no_chance() -> None:
    run = evaluated()
    unknown = replace(run, ranks=replace(run.ranks, n_candidates=np.zeros(4, dtype=int)), candidates_sha256=None)
    block = summarise(unknown, 200)
    assert block["candidates"] == {"n": None, "sha256": None}
    assert block["chance"] is None


def test_compare_by_hand() -> None:
    system, baseline = evaluated("system", (0, 0, 0, 0), (0, 0, 0, 0)), evaluated("baseline", (0, 1, 1, 1), (0, 0, 0, 0))
    rows = {row["metric"]: row for row in compare([system], baseline, 500)}
    assert rows["ndcg@1"]["difference"] == 3 / 4
    assert rows["mrr"]["difference"] == pytest.approx(3 / 8)
    assert rows["hr@5"]["difference"] == 0
    assert rows["hr@5"]["p"] == 1
    assert (rows["ndcg@1"]["run"], rows["ndcg@1"]["baseline"], rows["ndcg@1"]["n_users"]) == ("system", "baseline", 4)


def test_holm_counts_the_systems_of_a_metric() -> None:
    baseline = evaluated("b", (1,) * 40, (0,) * 40)
    systems = [evaluated(key, (0,) * 40, (0,) * 40) for key in "xyz"]
    rows = [row for row in compare(systems, baseline, 999) if row["metric"] == "ndcg@1"]
    assert [row["p"] for row in rows] == [2 / 1000] * 3
    assert [row["p_holm"] for row in rows] == [6 / 1000] * 3


def test_other_users_cannot_be_paired() -> None:
    with pytest.raises(ArtifactError, match=r"different users: 1 only in the first, 0 only in the second, e.g. 'u3'") as caught:
        compare([evaluated("system")], evaluated("baseline", (0, 1, 4), (0, 0, 1)))
    assert caught.value.exit_code == 4


def test_other_candidates_cannot_be_paired() -> None:
    baseline = evaluated("baseline")
    lists = baseline.lists.with_columns(target=pl.Series(["a", "a", "b", "a"]))
    with pytest.raises(ArtifactError, match=r"different candidates for 1 of 4 users, e.g. 'u2': sha256 abc and xyz"):
        compare([evaluated("system")], replace(baseline, candidates_sha256="xyz", lists=lists))


def test_per_user_frame() -> None:
    frame = per_user_frame([evaluated("one"), evaluated("two")])
    assert frame.columns == [
        "run",
        "user_id",
        "target_rank",
        "n_better",
        "n_tied",
        "ndcg@1",
        "ndcg@3",
        "ndcg@5",
        "mrr@3",
        "mrr@5",
        "hr@3",
        "hr@5",
        "mrr",
        "auc",
        "mean_rank",
    ]
    assert frame["run"].to_list() == ["one"] * 4 + ["two"] * 4
    one = frame.filter(pl.col("run") == "one")
    assert one["target_rank"].to_list() == [1, 2, 5.5, None]
    assert one["n_better"].to_list() == [0, 1, 4, None]
    assert one["hr@5"].to_list() == [1, 1, 0.5, 0]


def gate(malformed: int = 0, off_list: int = 0, low: float = -0.1, high: float = 0.1, **demands: object) -> list[str]:
    block = {"n_users": 100, "malformed": malformed, "off_list": off_list, "metrics": {"ndcg@1": {"value": 0.3}}}
    rows = [{"metric": "ndcg@1", "baseline": "b", "difference": (low + high) / 2, "ci95": [low, high]}]
    settings = {"metric": "ndcg@1", "max_malformed": 0.05, "min_value": None, "no_worse": True} | demands
    return gate_failures(block, rows, **settings)


def test_gate_passes_at_its_limits() -> None:
    assert gate(malformed=3, off_list=2, min_value=0.3, low=-0.1, high=0.0) == []


def test_gate_names_each_failed_condition() -> None:
    failed = gate(malformed=4, off_list=2, min_value=0.31, low=-0.02, high=-0.01)
    assert len(failed) == 3
    assert failed[0].startswith("6 of 100 users (6.0%)")
    assert "ndcg@1 is 0.3000, at least 0.3100" in failed[1]
    assert "0.0150 below 'b'" in failed[2]
    assert gate(low=-0.02, high=-0.01, no_worse=False) == []


def test_gate_needs_its_metric() -> None:
    with pytest.raises(ValueError, match="auc"):
        gate(metric="auc")


def test_the_size_of_most_lists_is_given() -> None:
    run = evaluated()
    block = summarise(replace(run, ranks=replace(run.ranks, n_candidates=np.asarray([30, 29, 30, 30]))), 200)
    assert block["candidates"]["n"] == 30
    assert block["chance"]["ndcg@1"] == pytest.approx((3 / 30 + 1 / 29) / 4)
