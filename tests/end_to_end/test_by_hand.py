"""The README's pipeline, command by command, on domains that nobody has seen."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recmerge.runs import Workspace
from tests.conftest import Cli, write_domain_tables

QUICK = ["--set", "steps=4", "--set", "batch_size=8", "--set", "micro_batch_size=8", "--set", "prompt.max_length=128"]


def run(cli: Cli, *words: object) -> dict:
    code, out, err = cli(*words, "--json")
    assert code == 0, f"{words}: {err}"
    document = json.loads(out)
    assert Path(document["run_dir"]).is_absolute() if "run_dir" in document else True
    return document


@pytest.fixture
def domains(workspace: Workspace, tiny_base: Path) -> Workspace:
    for name in ("sports", "beauty", "toys"):
        write_domain_tables(workspace.root, name)
    return workspace


def test_the_whole_job(domains: Workspace, tiny_base: Path, cli: Cli) -> None:
    for name in ("sports", "beauty", "toys"):
        run(cli, "data", "build", name, "--config", f"{name}.yaml")
        assert cli("data", "check", name)[0] == 0
    mixed = run(cli, "data", "mix", "sports", "beauty", "toys")
    assert {r["name"] for r in mixed["runs"]} == {"beauty_sports", "sports_toys"}
    for name in ("sports", "sports_beauty", "toys_sports"):
        run(cli, "train", name, "--base", tiny_base, *QUICK, "--name", name)
    merged = run(cli, "merge", "--adapters", "sports,sports_beauty,toys_sports", "--name", "woven")
    assert merged["facts"]["max_relative_error"] <= 1e-6
    rankings = [run(cli, "infer", "sports", "--adapter", a) for a in ("sports", "woven")]
    rankings.append(run(cli, "infer", "sports", "--ranker", "popularity"))
    names = [r["name"] for r in rankings]
    evaluated = run(cli, "eval", *names[1:], "--baseline", names[0], "--samples", "200")
    metrics = json.loads((Path(evaluated["run_dir"]) / "metrics.json").read_text())
    assert metrics["candidates"]["n"] == 30
    assert metrics["n_users"] == 60
    assert {"ndcg@1", "ndcg@3", "ndcg@5", "mrr@5", "hr@5", "mrr"} <= metrics["metrics"].keys()
    assert metrics["metrics"]["ndcg@1"]["value"] == pytest.approx(ndcg1_by_hand(Path(rankings[1]["run_dir"])))
    lineage = cli("runs", "lineage", evaluated["name"])[1]
    for part in ("sports", "beauty_sports", "sports_toys", "woven", "tiny"):
        assert part in lineage
    again = run(cli, "merge", "--adapters", "sports,beauty_sports,sports_toys", "--name", "woven")
    assert again["already_done"] is True


def ndcg1_by_hand(folder: Path) -> float:
    hits = []
    for _, rows in pl.read_parquet(folder / "rankings.parquet").group_by("user_id"):
        best = rows.filter(pl.col("score") == rows["score"].max())
        hits.append(best["is_target"].sum() / best.height)
    return float(np.mean(hits))


def test_all_ways_to_write_a_merge_rank_alike(domains: Workspace, tiny_base: Path, cli: Cli) -> None:
    for name in ("sports", "beauty"):
        run(cli, "data", "build", name, "--config", f"{name}.yaml")
        run(cli, "train", name, "--base", tiny_base, *QUICK, "--name", name)
    scores = []
    for rank_out in ("cat", "svd:32", "fold"):
        name = rank_out.replace(":", "-")
        run(cli, "merge", "--adapters", "sports,beauty", "--weights", "0.7,0.3", "--method", "product", "--rank-out", rank_out, "--name", name)
        folder = Path(run(cli, "infer", "sports", "--adapter", name, "--users", "8")["run_dir"])
        scores.append(pl.read_parquet(folder / "rankings.parquet")["score"].to_numpy())
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3)
    np.testing.assert_allclose(scores[2], scores[0], atol=1e-3)
    assert np.abs(scores[0]).max() > 1


def test_a_union_of_two_is_the_hybrid(domains: Workspace, cli: Cli) -> None:
    for name in ("sports", "beauty"):
        run(cli, "data", "build", name, "--config", f"{name}.yaml")
    hybrid = run(cli, "data", "mix", "sports", "beauty")
    union = run(cli, "data", "mix", "beauty", "sports", "--union")
    assert union["run_dir"] == hybrid["run_dir"]
    assert union["already_done"] is True


def test_the_same_run_is_never_done_twice_and_again_makes_a_version(domains: Workspace, cli: Cli) -> None:
    first = run(cli, "data", "build", "sports", "--config", "sports.yaml")
    assert run(cli, "data", "build", "sports", "--config", "sports.yaml")["already_done"] is True
    second = run(cli, "data", "build", "sports", "--config", "sports.yaml", "--again")
    assert (first["version"], second["version"]) == ("v001", "v002")
    same = [(o["path"].rpartition("/")[2], o["sha256"]) for o in first["outputs"]]
    assert same == [(o["path"].rpartition("/")[2], o["sha256"]) for o in second["outputs"]]
