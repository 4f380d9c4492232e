"""`infer --candidates` and `order_seed`: names, facts, what is written, what `eval` makes of it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import answer, refusal, write_domain_tables

from recmerge.config.infer import InferConfig
from recmerge.data.dataset import examples, read_domain
from recmerge.names import RANKINGS_FILE, TARGETS_FILE
from recmerge.rankers import RANKERS, Ranker, new_ranker
from recmerge.runs import Workspace
from recmerge.stages.infer import plan_infer


@pytest.fixture
def built(workspace: Workspace, cli: Any, tmp_path: Path) -> Path:
    """A workspace that holds `sports`, whose questions have 12 candidates; gives its folder."""
    config = write_domain_tables(tmp_path / "tables", "sports")
    assert cli("data", "build", "sports", "--config", config, "--set", "n_candidates=12", "--quiet")[0] == 0
    return workspace.root / "data/processed/sports/v001"


def evaluated(cli: Any, *words: object) -> tuple[dict[str, Any], str]:
    """Return `metrics.json` and the report."""
    folder = Path(answer(cli, "eval", *words)["run_dir"])
    return json.loads((folder / "metrics.json").read_text()), (folder / "report.html").read_text()


def test_stored_candidates_are_what_they_were(built: Path, workspace: Workspace, cli: Any) -> None:
    """Their settings, name and code are those of the runs from before there was a choice."""
    config = InferConfig(ranker="popularity")
    assert not {"candidates", "order_seed"} & set(config.resolved())
    plan = plan_infer(config, workspace, "sports", None)
    assert plan.spec.name == "sports-popularity"
    assert plan.outputs == (RANKINGS_FILE,)
    assert plan.spec.identity == plan_infer(InferConfig(ranker="popularity", candidates="stored"), workspace, "sports", None).spec.identity
    others = [{"candidates": "popular"}, {"candidates": "similar"}, {"candidates": "all"}, {"order_seed": 0}, {"order_seed": 1}]
    plans = [plan_infer(InferConfig.model_validate({"ranker": "popularity"} | other), workspace, "sports", None) for other in others]
    assert [p.spec.name.removeprefix("sports-popularity") for p in plans] == ["-popular", "-similar", "-all", "-order0", "-order1"]
    assert len({p.spec.identity for p in [*plans, plan]}) == 6
    assert answer(cli, "infer", "sports", "--ranker", "popularity")["facts"]["candidates"]["kind"] == "stored"
    assert answer(cli, "infer", "sports", "--ranker", "popularity", "--candidates", "stored")["already_done"]


@pytest.mark.parametrize("kind", ["popular", "similar"])
def test_other_lists_are_as_long_and_hold_the_target(built: Path, cli: Any, kind: str) -> None:
    made = answer(cli, "infer", "sports", "--ranker", "tfidf", "--candidates", kind)
    assert made["name"] == f"sports-tfidf-{kind}"
    assert (made["facts"]["candidates"]["kind"], made["facts"]["candidates"]["n"]) == (kind, 12)
    frame = pl.read_parquet(Path(made["run_dir"]) / "rankings.parquet")
    per_user = frame.group_by("user_id").agg(pl.len(), pl.col("is_target").sum(), pl.col("item_id").n_unique().alias("items"))
    assert set(per_user.drop("user_id").rows()) == {(12, 1, 12)}
    few = answer(cli, "infer", "sports", "--ranker", "tfidf", "--candidates", kind, "--users", "5", "--name", "few")
    asked = pl.read_parquet(Path(few["run_dir"]) / "rankings.parquet")
    assert asked.equals(frame.filter(pl.col("user_id").is_in(asked["user_id"].unique().implode())))
    metrics, report = evaluated(cli, made["name"])
    assert {"popular": "how often an item was bought", "similar": "titles are most like"}[kind] in report
    assert metrics["candidates"] == {"n": 12, "sha256": made["facts"]["candidates"]["sha256"], "kind": kind}


def test_similar_negatives_share_the_targets_words(built: Path, cli: Any) -> None:
    """Titles are `BRAND KIND, Model NNN & Case`: of 40 items 5 have the target's brand and 8 its kind."""
    titles = read_domain(built).titles
    shared = {}
    for kind in ("stored", "similar"):
        frame = pl.read_parquet(Path(answer(cli, "infer", "sports", "--ranker", "random", "--candidates", kind)["run_dir"]) / "rankings.parquet")
        target = dict(frame.filter("is_target").select("user_id", "item_id").iter_rows())
        others = frame.filter(~pl.col("is_target")).select("user_id", "item_id").rows()
        words = [len(set(titles[i].lower().split()) & set(titles[target[u]].lower().split())) for u, i in others]
        shared[kind] = sum(words) / len(words)
    assert shared["similar"] > shared["stored"] + 0.3


def test_the_whole_catalogue_against_brute_force(built: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmerge.stages.infer_all.N_KEPT", 4)
    monkeypatch.setattr("recmerge.stages.infer_all._CELLS", 7 * 40)  # batches of seven users
    made = answer(cli, "infer", "sports", "--ranker", "popularity", "--candidates", "all")
    folder = Path(made["run_dir"])
    domain = read_domain(built)
    ranker = new_ranker("popularity")
    ranker.fit(domain)
    items = domain.items["item_id"].to_list()
    counts, rankings = pl.read_parquet(folder / TARGETS_FILE), pl.read_parquet(folder / RANKINGS_FILE)
    tied = 0
    for example in examples(domain, "test"):
        own = set(domain.sequences[example.user_id]) - {example.target}
        score = {i: float(ranker.score([type(example)("sports", example.user_id, example.history, i, (i,))])[0, 0]) for i in items if i not in own}
        better = sum(s > score[example.target] for s in score.values())
        same = sum(s == score[example.target] for s in score.values()) - 1
        assert counts.row(by_predicate=pl.col("user_id") == example.user_id)[1:] == (len(score), better, same)
        best = sorted(score, key=lambda i: (-score[i], i))[:4]
        kept = [*best, *([] if example.target in best else [example.target])]
        mine = rankings.filter(pl.col("user_id") == example.user_id)
        assert mine["item_id"].to_list() == kept
        assert mine["score"].to_list() == [score[i] for i in kept]
        assert mine["rank"].to_list() == [1 + sum(s > score[i] for s in score.values()) for i in kept]
        assert mine.filter("is_target")["item_id"].to_list() == [example.target]
        tied += same > 0
    assert tied
    metrics, report = evaluated(cli, made["name"])
    assert (metrics["candidates"]["kind"], metrics["ties"], metrics["n_users"]) == ("all", tied, len(counts))
    gain = sum((b == 0) / (1 + t) for b, t in counts.select("n_better", "n_tied").iter_rows()) / len(counts)
    assert metrics["metrics"]["ndcg@1"]["value"] == pytest.approx(gain)
    assert "The candidates are the whole catalogue" in report


def test_runs_of_the_whole_catalogue_are_compared(built: Path, cli: Any) -> None:
    for ranker in ("popularity", "tfidf"):
        answer(cli, "infer", "sports", "--ranker", ranker, "--candidates", "all", "--users", "20")
    made, _ = evaluated(cli, "sports-tfidf-all", "--baseline", "sports-popularity-all")
    assert made["runs"]["sports-tfidf-all"]["candidates"] == made["runs"]["sports-popularity-all"]["candidates"]
    counts = Path(answer(cli, "infer", "sports", "--ranker", "tfidf", "--candidates", "all", "--users", "20")["run_dir"]) / TARGETS_FILE
    pl.read_parquet(counts).with_columns(pl.lit(0, dtype=pl.Int64).alias("n_better")).write_parquet(counts)
    code, err = refusal(cli, "eval", "sports-tfidf-all")
    assert code == 4
    assert "targets.parquet is not what its manifest records" in err
    code, err = refusal(cli, "eval", "--fuse", "sports-tfidf-all,sports-popularity-all")
    assert code == 2
    assert "--fuse needs the score of every candidate" in err


def test_kinds_do_not_mix(built: Path, cli: Any) -> None:
    for kind in ("stored", "popular"):
        answer(cli, "infer", "sports", "--ranker", "popularity", "--candidates", kind)
    for words in (("sports-popularity", "sports-popularity-popular"), ("sports-popularity", "--baseline", "sports-popularity-popular")):
        code, err = refusal(cli, "eval", *words)
        assert code == 2
        assert "was asked stored candidates and" in err
        assert "cannot stand in one table" in err


def test_what_cannot_rank_a_catalogue_says_who_can(built: Path, workspace: Workspace, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lists(Ranker):  # the protocol alone, without score_all
        name = "lists"

    monkeypatch.setitem(RANKERS, "lists", Lists)
    code, err = refusal(cli, "infer", "sports", "--ranker", "lists", "--candidates", "all")
    assert code == 2
    assert "ranker 'lists' cannot score a whole catalogue" in err
    assert "popularity" in err
    assert " lists," not in err
    model = ("--adapter", "none", "--base", "nano", "--candidates", "all")
    code, err = refusal(cli, "infer", "sports", *model, "--set", "prompt.style=listwise")
    assert code == 2
    assert "the listwise prompt of adapter 'none' names its candidates" in err
    code, err = refusal(cli, "infer", "sports", *model, "--set", "mode=generate")
    assert code == 2
    assert "mode=generate writes answers" in err
    code, err = refusal(cli, "infer", "sports", "--ranker", "popularity", "--candidates", "all", "--set", "order_seed=1")
    assert code == 2
    assert "--candidates all has no lists" in err
    code, err = refusal(cli, "infer", "sports", "--ranker", "popularity", "--candidates", "hard")
    assert code == 2
    assert "'stored', 'popular', 'similar' or 'all'" in err
    assert not (workspace.root / "runs").exists()


def test_another_order_changes_nothing_for_popularity(built: Path, cli: Any) -> None:
    answer(cli, "infer", "sports", "--ranker", "popularity")
    moved = answer(cli, "infer", "sports", "--ranker", "popularity", "--set", "order_seed=3")
    assert moved["name"] == "sports-popularity-order3"
    made, _ = evaluated(cli, "sports-popularity-order3", "--baseline", "sports-popularity")
    assert {row["difference"] for row in made["comparisons"]} == {0.0}
    runs = [pl.read_parquet(built.parents[3] / f"runs/infer/{name}/v001/rankings.parquet") for name in ("sports-popularity", "sports-popularity-order3")]
    assert runs[0]["item_id"].to_list() != runs[1]["item_id"].to_list()
    keys = ["user_id", "item_id"]
    assert runs[0].sort(keys).equals(runs[1].sort(keys))


def test_another_order_reaches_a_listwise_prompt(built: Path, tiny_base: Path, cli: Any) -> None:
    base = ("infer", "sports", "--adapter", "none", "--base", tiny_base, "--users", "4", "--set", "prompt.max_length=600")
    scores = {}
    for style in ("listwise", "open"):
        for order in ("null", "3"):
            made = answer(cli, *base, "--set", f"prompt.style={style}", "--set", f"order_seed={order}", "--name", f"{style}-{order}")
            scores[style, order] = pl.read_parquet(Path(made["run_dir"]) / "rankings.parquet").sort("user_id", "item_id")["score"].to_numpy()
    assert scores["open", "null"] == pytest.approx(scores["open", "3"], abs=1e-5)
    assert abs(scores["listwise", "null"] - scores["listwise", "3"]).max() > 1e-3
