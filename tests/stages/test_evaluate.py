"""`recmerge eval` from hand-made ranking runs to metrics, report, gate and errors."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recmerge.config.evaluate import EvalConfig
from recmerge.config.loader import load, shipped_names
from recmerge.errors import ConfigError
from recmerge.evaluation.ranks import candidate_sha256
from recmerge.runs import Input, RunSpec, Workspace, open_run, resolve

Cli = Callable[..., tuple[int, str, str]]
N_USERS, ITEMS = 12, ["a", "b", "c", "d"]


def rank_run(
    workspace: Workspace,
    name: str,
    scores: Sequence[float | None],
    *,
    n_users: int = N_USERS,
    items: Sequence[str] = ITEMS,
    inputs: Sequence[Input] = (),
    others: dict[int, Sequence[float | None]] | None = None,
    **facts: Any,
) -> Path:
    """A ranking run in which every user, but for the `others`, gets the same scores and the target is the first item."""
    lists = [(others or {}).get(u, scores) for u in range(n_users)]
    rows = [(f"u{u:02d}", item, score, item == items[0]) for u, own in enumerate(lists) for item, score in zip(items, own, strict=True)]
    schema = {"user_id": pl.String, "item_id": pl.String, "score": pl.Float64, "is_target": pl.Boolean}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(rank=pl.lit(1, dtype=pl.Int32))
    with open_run(workspace, RunSpec("infer", name, {"scores": list(scores), "facts": facts}, tuple(inputs), "test")) as run:
        frame.write_parquet(run.path / "rankings.parquet")
        run.facts |= {"kind": "rankings", "domains": ["sports"], "mode": "score", "split": "test", "n_users": n_users, "label": name}
        run.facts |= {"candidates": {"n": len(items), "sha256": candidate_sha256(frame)}, "malformed": 0, "off_list": 0} | facts
    return run.path


def data_run(workspace: Workspace, times: int = 1) -> Input:
    """A built domain of so many times twelve users, of whom `eval` reads events: the last two of the first third tie, the first half's histories are short."""
    users = [f"u{u:02d}" for u in range(N_USERS * times)]
    with open_run(workspace, RunSpec("build", "sports", {}, (), "test")) as run:
        pl.DataFrame({"user_id": users, "n_events": ([5] * 6 + [20] * 6) * times, "tied": ([True] * 4 + [False] * 8) * times}).write_parquet(
            run.path / "users.parquet"
        )
        events = [(user, "a", 0, "train") for user in users] + [(user, "b", 4 if i % N_USERS < 6 else 19, "test") for i, user in enumerate(users)]
        pl.DataFrame(events, schema=["user_id", "item_id", "position", "split"], orient="row").write_parquet(run.path / "events.parquet")
        pl.DataFrame({"item_id": ITEMS, "title": [f"Title {i}" for i in ITEMS]}).write_parquet(run.path / "items.parquet")
        run.facts |= {"kind": "domain", "domains": ["sports"], "profile": "clean"}
    return resolve(workspace, "sports", ["build"]).as_input("data", workspace)


def metrics_of(path: Path) -> dict[str, Any]:
    return json.loads((path / "metrics.json").read_text())


def test_end_to_end(workspace: Workspace, cli: Cli) -> None:
    data = data_run(workspace)
    rank_run(workspace, "good", [3, 2, 1, 0], inputs=[data])
    rank_run(workspace, "flat", [1, 1, 1, 1], inputs=[data])
    code, out, err = cli("eval", "good", "--baseline", "flat", "--json")
    assert code == 0, err
    document = json.loads(out)
    path = Path(document["run_dir"])
    assert path == workspace.root / "runs" / "eval" / "good-vs-flat" / "v001"
    assert sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) == [
        "manifest.json",
        "metrics.json",
        "per_user.parquet",
        "report.html",
        "run.json",
    ]
    metrics = metrics_of(path)
    assert list(metrics["metrics"]) == ["ndcg@1", "ndcg@3", "ndcg@5", "mrr@3", "mrr@5", "hr@3", "hr@5", "mrr", "auc", "mean_rank"]
    assert metrics["metrics"]["ndcg@1"] == {"value": 1.0, "ci95": [pytest.approx(12 / (12 + 1.96**2), abs=1e-4), 1.0]}  # Wilson, of twelve users
    assert metrics["runs"]["flat"]["metrics"]["ndcg@1"]["value"] == 1 / 4
    assert metrics["runs"]["flat"]["metrics"]["mrr"]["value"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert (metrics["n_users"], metrics["ties"], metrics["runs"]["flat"]["ties"]) == (N_USERS, 0, N_USERS)
    assert metrics["candidates"]["n"] == 4
    assert metrics["run"]["label"] == "good"
    (row,) = [r for r in metrics["comparisons"] if r["metric"] == "ndcg@1"]
    assert (row["run"], row["baseline"], row["difference"], row["p"]) == ("good", "flat", 3 / 4, 2 / 2001)
    slices = {name: s["n_users"] for name, s in metrics["slices"].items()}
    assert slices == {"all": 12, "tied_last_two": 4, "history_1-4": 6, "history_10+": 6, "target_head": 12}
    assert pl.read_parquet(path / "per_user.parquet").group_by("run").len().sort("run").rows() == [("flat", 12), ("good", 12)]
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["facts"]["metrics"]["ndcg@1"] == 1.0
    assert [i["role"] for i in manifest["inputs"]] == ["run-1", "baseline", "data:run-1", "data:baseline"]


def test_the_same_evaluation_is_done_once(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0])
    first = json.loads(cli("eval", "good", "--json")[1])
    second = json.loads(cli("eval", "good", "--json", "--set", "gate.min_value=0.1")[1])
    assert (second["already_done"], second["run_dir"]) == (True, first["run_dir"])
    again = json.loads(cli("eval", "good", "--json", "--again")[1])
    assert again["version"] == "v002"
    for name in ("metrics.json", "per_user.parquet", "report.html"):
        assert (Path(again["run_dir"]) / name).read_bytes() == (Path(first["run_dir"]) / name).read_bytes()


def test_two_versions_of_one_run(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "sports", [3, 2, 1, 0])
    rank_run(workspace, "sports", [0, 2, 1, 3])
    code, out, _ = cli("eval", "sports@v001", "--baseline", "sports", "--json")
    assert code == 0
    metrics = metrics_of(Path(json.loads(out)["run_dir"]))
    assert list(metrics["runs"]) == ["sports@v001", "sports@v002"]
    assert metrics["baseline"] == "sports@v002"


def test_a_run_against_itself(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0])
    code, out, _ = cli("eval", "good", "--baseline", "good", "--json")
    assert code == 0
    rows = json.loads(out)["comparisons"]
    assert {(r["difference"], r["p"]) for r in rows} == {(0.0, 1.0)}


def test_a_missing_data_set_costs_the_slices_alone(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0])
    code, out, err = cli("eval", "good", "--json")
    assert code == 0
    assert "no slices" in err
    assert list(metrics_of(Path(json.loads(out)["run_dir"]))["slices"]) == ["all"]


def test_generate_mode_takes_places(workspace: Workspace, cli: Cli) -> None:
    path = rank_run(workspace, "written", [0.5, 1.0, None, None], mode="generate", malformed=0, off_list=3)
    frame = pl.read_parquet(path / "rankings.parquet")
    assert frame["rank"].unique().to_list() == [1]  # the places say first, whatever the scores say
    out = json.loads(cli("eval", "written", "--json")[1])
    assert out["metrics"]["ndcg@1"]["value"] == 1.0
    assert out["off_list"] == 3


def test_users_must_be_the_same(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0])
    rank_run(workspace, "few", [3, 2, 1, 0], n_users=5)
    rank_run(workspace, "others", [3, 2, 1, 0], items=["a", "b", "c", "x"])
    code, _, err = cli("eval", "good", "--baseline", "few")
    assert code == 4
    assert "7 only in the first" in err
    code, _, err = cli("eval", "good", "--baseline", "others")
    assert code == 4
    assert "different candidates for 12 of 12 users" in err
    assert cli("eval", "good", "others")[0] == 0
    assert "not asked the same" in (workspace.root / "runs/eval/good/v001/report.html").read_text()


def test_gate(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0])
    rank_run(workspace, "bad", [0, 1, 2, 3], malformed=2)
    assert cli("eval", "good", "--baseline", "bad", "--gate", "--quiet")[0] == 0
    code, _, err = cli("eval", "bad", "--baseline", "good", "--gate", "--quiet")
    assert code == 8
    line = next(text for text in err.splitlines() if text.startswith("error"))
    assert "2 of 12 users (16.7%)" in line
    assert "1.0000 below 'good'" in line
    assert (workspace.root / "runs/eval/bad-vs-good/v001/manifest.json").is_file()
    assert cli("eval", "bad", "--baseline", "good", "--gate", "--quiet")[0] == 8  # also where it was done before
    assert cli("eval", "good", "--gate", "--quiet", "--set", "gate.metric=hr@10")[0] == 2
    rank_run(workspace, "flat", [1, 1, 1, 1])
    assert cli("eval", "good", "bad", "--baseline", "flat", "--gate", "--quiet")[0] == 0  # the first is judged, not what stands beside it
    assert cli("eval", "good", "bad", "--baseline", "good", "--gate", "--quiet")[0] == 8  # the first is the baseline: the next is judged
    assert cli("eval", "good", "--baseline", "bad", "--gate", "--ks", "2,3", "--quiet")[0] == 0  # the first metric there is
    assert cli("eval", "good", "--gate", "--quiet", "--set", "gate.metric=auc", "--set", "gate.min_value=0.9")[0] == 0
    code, _, err = cli("eval", "good", "--gate")
    assert code == 0
    assert "no --baseline to compare with" in err


@pytest.mark.parametrize("flag", ["--baseline", "--fuse", "--ks", "--name"])
def test_an_option_that_is_given_nothing_is_refused(workspace: Workspace, cli: Cli, flag: str) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0])
    assert cli("eval", "good", flag, "")[0] == 2
    assert not (workspace.root / "runs" / "eval").exists()


def test_runs_that_cannot_be_compared_are_told(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0], n_users=60)
    rank_run(workspace, "few", [1, 1, 1, 1], n_users=55)
    _, _, err = cli("eval", "good", "few")
    assert "these runs were not asked the same questions" in err
    assert "'few' gives the target and other candidates one score for 100% of the users" in err


def test_a_run_named_fused_is_no_fusion(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "fused", [3, 2, 1, 0])
    code = cli("eval", "fused", "--quiet")[0]
    assert code == 0
    assert list(metrics_of(workspace.root / "runs/eval/fused/v001")["runs"]) == ["fused@v001"]


def test_a_loss_in_a_slice_is_told_and_may_fail_the_gate(workspace: Workspace, cli: Cli) -> None:
    data, right, wrong = data_run(workspace, 3), [3, 2, 1, 0], [0, 1, 2, 3]
    short = [u for u in range(36) if u % N_USERS < 6]
    rank_run(workspace, "own", right, n_users=36, inputs=[data], others=dict.fromkeys(set(range(36)) - set(short), wrong))
    rank_run(workspace, "moved", right, n_users=36, inputs=[data], others=dict.fromkeys(short, wrong))
    code, out, err = cli("eval", "moved", "--baseline", "own", "--gate", "--json")
    assert code == 0  # over all users they are level
    lost = {"tied_last_two", "history_1-4"}
    found = metrics_of(workspace.root / "runs/eval/moved-vs-own/v001")["transfer"]
    assert {row["slice"] for row in found["alarms"]} == lost
    assert json.loads(out)["transfer"] == found
    assert "negative transfer: 'moved' is below 'own' on ndcg@1" in err
    code, _, err = cli("eval", "moved", "--baseline", "own", "--gate", "--quiet", "--set", "gate.no_worse_slice=true")
    assert code == 8
    assert "1.0000 below the baseline in the slice history_1-4" in err
    text = (workspace.root / "runs/eval/moved-vs-own/v001/report.html").read_text()
    assert "negative transfer" in text
    assert cli("eval", "moved", "--quiet")[0] == 0
    assert metrics_of(workspace.root / "runs/eval/moved/v001")["transfer"] is None


def test_markup_in_labels_is_text(workspace: Workspace, cli: Cli) -> None:
    evil = "[red]x[/] [/bold] \x1b[31m<b>"
    rank_run(workspace, "good", [3, 2, 1, 0], label=evil)
    code, _, err = cli("eval", "good")
    assert code == 0
    assert "\x1b[31m" not in err
    assert "[red]x[/] [/bold]" in err
    page = (workspace.root / "runs/eval/good/v001/report.html").read_text()
    assert "\x1b" not in page
    assert "[red]x[/] [/bold] \\x1b[31m&lt;b&gt;" in page


def test_what_is_shown(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0])
    rank_run(workspace, "flat", [1, 1, 1, 1])
    code, out, err = cli("eval", "good", "--baseline", "flat", "--ks", "1,2", "--samples", "200")
    assert (code, out) == (0, "")
    for text in ("ndcg@1 [95 %]", "1.0000 [0.7575, 1.0000]", "only 12 users were asked", "+0.7500 [+0.7500, +0.7500] p 0.0100", "report.html"):
        assert text in err
    assert err.splitlines()[-1].startswith("next: recmerge ")
    assert list(metrics_of(workspace.root / "runs/eval/good-vs-flat/v001")["metrics"]) == ["ndcg@1", "ndcg@2", "mrr@2", "hr@2", "mrr", "auc", "mean_rank"]


def test_dry_run_writes_nothing(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0])
    code, out, _ = cli("eval", "good", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["name"] == "good"
    assert not (workspace.root / "runs" / "eval").exists()


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["none"], 4, "unknown ranking run 'none'"),
        ([], 2, "give at least one run"),
        (["good", "--ks", "1,x"], 2, "--ks '1,x'"),
        (["good", "--ks", "0"], 2, "a cut-off is 1 or more"),
        (["good", "--result-jsonl", "r.jsonl"], 2, "need each other"),
        (["--result-jsonl", "r.jsonl", "--test-jsonl", "t.jsonl"], 4, "result file"),
        (["../../x"], 2, "not allowed"),
    ],
)
def test_wrong_words(workspace: Workspace, cli: Cli, words: list[str], code: int, what: str) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0])
    found, _, err = cli("eval", *words)
    assert found == code
    assert what in err
    assert len(err.strip().splitlines()) == 1


def test_other_candidates_than_recorded_are_told(workspace: Workspace, cli: Cli) -> None:
    rank_run(workspace, "good", [3, 2, 1, 0], candidates={"n": 4, "sha256": "0" * 64})
    code, _, err = cli("eval", "good")
    assert code == 0
    assert "other candidates than its manifest records" in err


def test_changed_rankings_are_refused(workspace: Workspace, cli: Cli) -> None:
    path = rank_run(workspace, "good", [3, 2, 1, 0]) / "rankings.parquet"
    pl.read_parquet(path).with_columns(score=pl.lit(1.0)).write_parquet(path)
    code, _, err = cli("eval", "good")
    assert code == 4
    assert "not what its manifest records" in err


def test_another_kind_of_run_is_refused(workspace: Workspace, cli: Cli) -> None:
    data_run(workspace)
    code, _, err = cli("eval", str(workspace.root / "data/processed/sports/v001"))
    assert code == 4
    assert "it is a run of stage build" in err


def test_two_targets_exit_3(workspace: Workspace, cli: Cli) -> None:
    with open_run(workspace, RunSpec("infer", "odd", {}, (), "test")) as run:
        rows = {"user_id": ["u", "u"], "item_id": ["a", "b"], "score": [1.0, 2.0], "rank": [2, 1], "is_target": [True, True]}
        pl.DataFrame(rows).write_parquet(run.path / "rankings.parquet")
        run.facts |= {"kind": "rankings", "domains": ["sports"]}
    code, _, err = cli("eval", "odd")
    assert code == 3
    assert "user 'u' has 2 targets" in err
    assert not (workspace.root / "runs/eval/odd/v001/manifest.json").exists()


def test_published_files(workspace: Workspace, cli: Cli) -> None:
    prompt = "Candidates: [A||B||C] Answer:"
    tests = [{"input": prompt, "output": f"{t}||A"} for t in "ABC"]
    (workspace.root / "t.jsonl").write_text("".join(json.dumps(t) + "\n" for t in tests))
    (workspace.root / "my result.jsonl").write_text('"A||B"\nnot json\n"B||C||Z"\n')
    code, out, _ = cli("eval", "--result-jsonl", "my result.jsonl", "--test-jsonl", "t.jsonl", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["name"] == "my-result"
    assert document["metrics"]["mrr"]["value"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert (document["malformed"], document["off_list"], document["n_users"]) == (1, 1, 3)
    metrics = metrics_of(Path(document["run_dir"]))
    assert metrics["candidates"]["n"] == 3
    assert metrics["chance"]["ndcg@1"] == pytest.approx(1 / 3)


def test_shipped_configs_load() -> None:
    names = shipped_names("eval")
    assert names
    for name in names:
        assert load(EvalConfig, "eval", name, {"runs": ["x"]}).ks


def test_runs_and_files_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="not both"):
        load(EvalConfig, "eval", None, {"runs": ["x"], "result_jsonl": "r", "test_jsonl": "t"})
