"""Rows over several seeds: means, paired differences, and intervals that know the seeds."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recmerge.ablation.graph import Cell, Graph, Outcome
from recmerge.ablation.grid import points
from recmerge.ablation.pooled import pool_seeds
from recmerge.evaluation.significance import bootstrap_means, bootstrap_seeds, interval

USERS = [f"u{i:02d}" for i in range(40)]


@pytest.fixture
def evaluated(tmp_path: Path) -> tuple[Graph, dict[str, Outcome]]:
    """Seeds 1 and 2 of "own" and "woven" (right for every second user; +0.25 with seed 1, +0.75 with seed 2), and a floor."""
    graph, outcomes = Graph(), {}
    values = {"own": [0.0, 0.0], "woven": [0.25, 0.75], "floor": [0.5, 0.5]}
    for point, seed in zip(points([1, 2], {}), (1, 2), strict=True):
        frames, wants = [], []
        for system, by_seed in values.items():
            name = "t-floor" if system == "floor" else f"t-{system}-seed{seed}"
            wants.append(graph.add(Cell("infer", name, ("infer",), labels={"system": system})))
            outcomes[f"infer {name}"] = Outcome("done", result={"name": name})
            column = [by_seed[seed - 1] * (2 * (i % 2)) for i in range(len(USERS))]
            frames.append(pl.DataFrame({"run": [name] * len(USERS), "user_id": USERS, "ndcg@1": column, "mrr": column}))
        graph.add(Cell("eval", f"e{seed}", ("eval",), wants=tuple(wants), labels={"target": "toys", **point.labels()}))
        folder = tmp_path / f"e{seed}"
        folder.mkdir()
        pl.concat(frames).sample(fraction=1.0, shuffle=True, seed=seed).write_parquet(folder / "per_user.parquet")
        (folder / "metrics.json").write_text(json.dumps({"metrics": {"ndcg@1": {}, "mrr": {}}, "bootstrap": {"n_samples": 2000, "seed": 7}}))
        outcomes[f"eval e{seed}"] = Outcome("done", result={"run_dir": str(folder)})
    return graph, outcomes


def test_means_over_seeds_and_users(evaluated: tuple[Graph, dict[str, Outcome]]) -> None:
    rows = {r.system: r for r in pool_seeds(*evaluated, baseline="own")}
    assert list(rows) == ["own", "woven", "floor"]
    assert {r.point for r in rows.values()} == {"mean of seeds 1, 2"}
    assert {s: r.metrics["ndcg@1"]["value"] for s, r in rows.items()} == {"own": 0.0, "woven": 0.5, "floor": 0.5}
    assert rows["own"].is_baseline
    assert not rows["own"].differences
    assert rows["woven"].differences["mrr"]["difference"] == 0.5
    assert rows["woven"].n_users == 40


def test_intervals_know_that_seeds_differ(evaluated: tuple[Graph, dict[str, Outcome]]) -> None:
    rows = {r.system: r for r in pool_seeds(*evaluated, baseline="own")}
    width = {s: np.ptp(r.metrics["ndcg@1"]["ci95"]) for s, r in rows.items()}
    assert width["own"] == 0
    assert width["woven"] > 1.3 * width["floor"] > 0  # the same mean and users, but the seeds of one are apart
    low, high = rows["woven"].differences["ndcg@1"]["ci95"]
    assert low < 0.25 < 0.75 < high
    assert rows["woven"].differences["ndcg@1"]["p"] < 0.01


def test_holm_is_over_the_systems_that_are_compared(evaluated: tuple[Graph, dict[str, Outcome]], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([0.04, 0.01])  # of woven and of the floor
    monkeypatch.setattr("recmerge.ablation.pooled.two_sided", lambda means: np.full(means.shape[1], next(drawn)))
    rows = {r.system: r for r in pool_seeds(*evaluated, baseline="own")}
    assert [rows[s].differences["ndcg@1"]["p_holm"] for s in ("woven", "floor")] == [0.04, 0.02]
    assert not rows["own"].differences


def test_differences_are_those_of_the_same_users(evaluated: tuple[Graph, dict[str, Outcome]]) -> None:
    graph, outcomes = evaluated
    for seed in (1, 2):  # users far apart, and one system above the other by a tenth for each of them
        path = Path(outcomes[f"eval e{seed}"].result["run_dir"]) / "per_user.parquet"
        own = np.random.default_rng(seed).random(len(USERS))
        columns = {f"t-own-seed{seed}": own, f"t-woven-seed{seed}": own + 0.1, "t-floor": 1 - own}
        pl.concat([pl.DataFrame({"run": name, "user_id": USERS, "ndcg@1": v, "mrr": v}) for name, v in columns.items()]).write_parquet(path)
    rows = {r.system: r.differences.get("ndcg@1") for r in pool_seeds(graph, outcomes, "own")}
    assert rows["woven"] is not None
    assert rows["woven"]["ci95"] == pytest.approx([0.1, 0.1])
    assert np.ptp(rows["floor"]["ci95"]) > 0.1


def test_a_system_without_all_seeds_is_left_out(evaluated: tuple[Graph, dict[str, Outcome]]) -> None:
    graph, outcomes = evaluated
    outcomes["infer t-woven-seed2"] = Outcome("failed", error="x")
    assert [r.system for r in pool_seeds(graph, outcomes, "own")] == ["own", "floor"]


def test_one_seed_is_not_pooled(evaluated: tuple[Graph, dict[str, Outcome]]) -> None:
    graph, outcomes = evaluated
    outcomes["eval e2"] = Outcome("failed", error="x")
    assert pool_seeds(graph, outcomes, "own") == []


def test_resampling_one_seed_is_resampling_users() -> None:
    values = np.random.default_rng(0).random((1, 300, 2))
    assert bootstrap_seeds(values, 500, 3) == pytest.approx(bootstrap_means(values[0], 500, 3))
    many = np.repeat(values, 3, axis=0)  # three equal seeds are no more than one
    assert interval(bootstrap_seeds(many, 500, 3)) == pytest.approx(interval(bootstrap_means(values[0], 500, 3)))
    with pytest.raises(ValueError, match="no seeds or no users"):
        bootstrap_seeds(values[:0])
