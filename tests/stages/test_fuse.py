"""`recmerge eval --fuse` from hand-made rankings: twins, the fused ranking, what a language model adds, and errors."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rankings import N_CANDIDATES, rank

from recmerge.runs import Workspace

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def three(workspace: Workspace) -> Workspace:
    for split in ("valid", "test"):
        rank(workspace, "sports-left", split, weight=0.9)
        rank(workspace, "sports-right", split, weight=0.1)
        rank(workspace, "sports-model", split, weight=0.5, ranker=None, adapter="sports")
    return workspace


def test_a_fusion_beats_its_parts_and_says_what_the_model_adds(three: Workspace, cli: Cli) -> None:
    code, out, err = cli("eval", "sports-left", "--fuse", "left,right,model", "--baseline", "sports-left", "--set", "fusion_model=logit", "--json")
    assert code == 0, err
    folder = Path(json.loads(out)["run_dir"])
    metrics = json.loads((folder / "metrics.json").read_text())
    at_1 = {key: block["metrics"]["ndcg@1"]["value"] for key, block in metrics["runs"].items()}
    assert list(at_1) == ["sports-left", "sports-right", "sports-model", "fused", "fused without sports-model"]
    assert at_1["fused"] > max(at_1["sports-left"], at_1["sports-right"]) + 0.1
    assert at_1["fused without sports-model"] > max(at_1["sports-left"], at_1["sports-right"]) + 0.1
    compared = {row["run"] for row in metrics["comparisons"]}
    assert compared == set(at_1) - {"sports-left"}
    added = [row for row in metrics["fusion"]["added"] if row["metric"] == "ndcg@1"]
    assert [(row["run"], row["baseline"]) for row in added] == [("fused", "fused without sports-model")]
    assert added[0]["difference"] == pytest.approx(at_1["fused"] - at_1["fused without sports-model"])
    fitted = metrics["fusion"]["fitted"]["fused"]
    assert fitted["n_users"] == 60
    assert fitted["held_out_log_loss"]["logit"] < fitted["held_out_log_loss"]["uniform"] == pytest.approx(np.log(N_CANDIDATES))
    fused = pl.read_parquet(folder / "fused.parquet")
    assert fused.columns == ["run", "user_id", "item_id", "score", "rank", "is_target"]
    first = fused.filter((pl.col("run") == "fused") & pl.col("is_target"))
    assert (first["rank"] == 1).mean() == pytest.approx(at_1["fused"])
    page = (folder / "report.html").read_text()
    assert "What the language models add" in page
    assert "sports-model:place" in page


def test_the_fusion_alone_is_what_is_judged(three: Workspace, cli: Cli) -> None:
    code, out, err = cli("eval", "--fuse", "sports-left,sports-right", "--set", "fusion_model=logit", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["name"] == "sports-fused"
    metrics = json.loads((Path(document["run_dir"]) / "metrics.json").read_text())
    assert list(metrics["runs"]) == ["fused", "sports-left", "sports-right"]
    assert metrics["fusion"]["added"] == []
    assert cli("eval", "--fuse", "sports-left,sports-right", "--set", "fusion_model=logit")[2].count("already done") == 1


def test_a_missing_twin_names_its_command(workspace: Workspace, cli: Cli) -> None:
    rank(workspace, "sports-left", "test", weight=0.9)
    rank(workspace, "sports-right", "test", weight=0.1)
    code, _, err = cli("eval", "--fuse", "sports-left,sports-right")
    assert code == 4
    assert "recmerge infer sports --ranker left --split valid --name sports-left-valid" in err


def test_a_twin_is_of_the_same_settings(three: Workspace, cli: Cli) -> None:
    rank(three, "sports-far", "test", weight=0.4, ranker="left", half_life=3)
    code, _, err = cli("eval", "--fuse", "sports-far,sports-right")
    assert code == 4
    assert "'sports-far' is to be fitted, which needs the same system's ranking of the validation events" in err


@pytest.mark.parametrize(
    ("parts", "code", "what"),
    [
        ("left", 2, "two runs or more"),
        ("left,left", 2, "each once"),
        ("sports-left,left", 2, "names one run twice"),
        ("left,nothing", 4, "nothing"),
        ("left,sports-right-valid", 2, "ranks validation events"),
    ],
)
def test_bad_parts(three: Workspace, cli: Cli, parts: str, code: int, what: str) -> None:
    found, _, err = cli("eval", "sports-left", "--fuse", parts)
    assert found == code
    assert what in err
    assert sum(line.startswith("error[") for line in err.splitlines()) == 1


def test_parts_that_were_asked_other_users(three: Workspace, cli: Cli) -> None:
    for split in ("valid", "test"):
        rank(three, "sports-few", split, weight=0.5, n_users=20)
    code, _, err = cli("eval", "--fuse", "sports-left,sports-few")
    assert code == 4
    assert "rank different users or candidates" in err


def test_a_fusion_is_fitted_on_the_validation_users_that_all_parts_were_asked_about(three: Workspace, cli: Cli) -> None:
    rank(three, "sports-few", "valid", weight=0.5, kept=45)
    rank(three, "sports-few", "test", weight=0.5)
    code, out, err = cli("eval", "--fuse", "sports-left,sports-few", "--set", "fusion_model=logit", "--json")
    assert code == 0, err
    metrics = json.loads((Path(json.loads(out)["run_dir"]) / "metrics.json").read_text())
    assert metrics["fusion"]["fitted"]["fused"]["n_users"] == 45
    assert metrics["runs"]["fused"]["n_users"] == 60


def test_what_two_language_models_add_together(three: Workspace, cli: Cli) -> None:
    for split in ("valid", "test"):
        rank(three, "sports-other", split, weight=0.4, ranker=None, adapter="toys")
    code, out, err = cli("eval", "--fuse", "sports-left,sports-right,sports-model,sports-other", "--set", "fusion_model=logit", "--json")
    assert code == 0, err
    added = json.loads((Path(json.loads(out)["run_dir"]) / "metrics.json").read_text())["fusion"]["added"]
    left_out = [row["baseline"].removeprefix("fused without ") for row in added if row["metric"] == "ndcg@1"]
    assert left_out == ["sports-model", "sports-other", "any language model"]


def test_too_few_validation_users(workspace: Workspace, cli: Cli) -> None:
    for name, weight in (("sports-left", 0.9), ("sports-right", 0.1)):
        rank(workspace, name, "test", weight=weight)
        rank(workspace, name, "valid", weight=weight, n_users=5)
    code, _, err = cli("eval", "--fuse", "sports-left,sports-right")
    assert code == 4
    assert "5 validation users" in err


def test_the_rankings_that_a_fusion_is_fitted_on_may_be_named(three: Workspace, cli: Cli) -> None:
    for name, weight in (("sports-left", 0.9), ("sports-right", 0.1)):
        rank(three, name, "valid", weight=weight, n_users=30)  # newer, but of fewer users than what is found by itself

    def fitted(*more: str) -> int:
        code, out, err = cli("eval", "--fuse", "sports-left,sports-right", "--set", "fusion_model=logit", "--json", *more)
        assert code == 0, err
        return int(json.loads(out)["fusion"]["fitted"]["fused"]["n_users"])

    assert fitted() == 60
    assert fitted("--fit-on", "sports-left-valid,sports-right-valid") == 30
    assert fitted("--fit-on", "sports-left-valid@v001,sports-right-valid@v001") == 60
    assert len(list((three.root / "runs" / "eval" / "sports-fused").iterdir())) == 2  # naming what is found anyway is the same evaluation


@pytest.mark.parametrize(
    ("named", "code", "what"),
    [
        ("sports-left-valid", 2, "names 1 runs, fuse (--fuse) 2"),
        ("sports-right-valid,sports-left-valid", 2, "is not the ranking of validation events by the system of 'infer/sports-left"),
        ("sports-left,sports-right", 2, "is not the ranking of validation events"),
        ("sports-left-valid,nothing", 4, "nothing"),
    ],
)
def test_bad_rankings_to_fit_on(three: Workspace, cli: Cli, named: str, code: int, what: str) -> None:
    found, _, err = cli("eval", "--fuse", "sports-left,sports-right", "--fit-on", named)
    assert found == code
    assert what in err
    assert sum(line.startswith("error[") for line in err.splitlines()) == 1


def test_the_twin_of_other_candidates_was_asked_the_same(workspace: Workspace, cli: Cli) -> None:
    for name in ("sports-left", "sports-right"):
        rank(workspace, name, "valid", weight=0.5)
        rank(workspace, name, "test", weight=0.5, candidates="popular")
    code, _, err = cli("eval", "--fuse", "sports-left,sports-right")
    assert code == 4
    assert "recmerge infer sports --ranker left --set candidates=popular --split valid --name sports-left-valid" in err
