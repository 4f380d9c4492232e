"""What `recmerge eval` shows beside the figures: users, and the losses of the adapters behind the runs."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from recmerge.runs import Input, RunSpec, Workspace, open_run, resolve

Cli = Callable[..., tuple[int, str, str]]
USERS = [f"u{i}" for i in range(9)]
ITEMS = ["a", "b", "c", "d"]


def a_domain(workspace: Workspace) -> Input:
    with open_run(workspace, RunSpec("build", "sports", {}, (), "test")) as run:
        pl.DataFrame({"user_id": USERS, "tied": [False] * len(USERS)}).write_parquet(run.path / "users.parquet")
        events = [(user, item, n, split) for user in USERS for n, (item, split) in enumerate([("c", "train"), ("d", "valid"), ("a", "test")])]
        pl.DataFrame(events, schema=["user_id", "item_id", "position", "split"], orient="row").write_parquet(run.path / "events.parquet")
        pl.DataFrame({"item_id": ITEMS, "title": ["<script>A</script>", "Ball & bat", "Cap", "Dart"]}).write_parquet(run.path / "items.parquet")
        run.facts |= {"kind": "domain", "domains": ["sports"], "profile": "clean"}
    return resolve(workspace, "sports", ["build"]).as_input("data", workspace)


def an_adapter(workspace: Workspace, name: str, data: Input, lines: Sequence[str]) -> Input:
    with open_run(workspace, RunSpec("train", name, {"name": name}, (data,), "test")) as run:
        (run.path / "loss.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (run.path / "valid_loss.jsonl").write_text('{"step": 2, "loss": 1.5, "domains": {}}\n', encoding="utf-8")
        run.facts |= {"kind": "adapter", "domains": ["sports"]}
    return resolve(workspace, name, ["train"]).as_input(f"adapter-{name}", workspace)


def a_merge(workspace: Workspace, name: str, inputs: Sequence[Input]) -> Input:
    with open_run(workspace, RunSpec("merge", name, {}, tuple(inputs), "test")) as run:
        (run.path / "note.txt").write_text("merged", encoding="utf-8")
    return resolve(workspace, name, ["merge"]).as_input("adapter", workspace)


def a_ranking(workspace: Workspace, name: str, scores: Sequence[float], inputs: Sequence[Input]) -> Path:
    rows = [(user, item, score, 1, item == "a") for user in USERS for item, score in zip(ITEMS, scores, strict=True)]
    schema = {"user_id": pl.String, "item_id": pl.String, "score": pl.Float64, "rank": pl.Int32, "is_target": pl.Boolean}
    with open_run(workspace, RunSpec("infer", name, {"name": name}, tuple(inputs), "test")) as run:
        pl.DataFrame(rows, schema=schema, orient="row").write_parquet(run.path / "rankings.parquet")
        run.facts |= {"kind": "rankings", "domains": ["sports"], "mode": "score", "split": "test", "label": name}
    return run.path


def report(cli: Cli, *words: str) -> tuple[str, str]:
    code, out, err = cli("eval", *words, "--samples", "100", "--json")
    assert code == 0, err
    return (Path(json.loads(out)["run_dir"]) / "report.html").read_text(encoding="utf-8"), err


def test_users_and_the_losses_behind_a_merge(workspace: Workspace, cli: Cli) -> None:
    data = a_domain(workspace)
    adapters = [an_adapter(workspace, name, data, ['{"step": 1, "loss": 3.0}', '{"step": 2, "loss": 2.0}']) for name in ("sports", "beauty_sports")]
    a_ranking(workspace, "woven", [2, 3, 1, 0], [data, a_merge(workspace, "woven", adapters)])
    a_ranking(workspace, "flat", [1, 1, 1, 1], [data])
    text, _ = report(cli, "woven", "--baseline", "flat")
    users = text[text.index("Some users</h2>") : text.index("Training loss</h2>")]
    # The target is second by one run; by the other, all four share place 2.5.
    assert "up to 2 of the 9 users whose target woven ranks better than flat, up to 2 of the 0 where it is worse" in users
    assert users.count("woven is better</h3>") == 2
    assert users.count("drawn at random</h3>") == 2
    row = '<th scope="row"><bdi>&lt;script&gt;A&lt;/script&gt;</bdi> <span class="tag">bought</span></th><td>2</td><td>2.5</td>'
    assert users.count(row) == 4
    assert users.index("<bdi>Cap</bdi>") < users.index("<bdi>Dart</bdi>") < users.index("<bdi>Ball &amp; bat</bdi>")  # the history comes first
    assert "<script" not in text
    for title in ("Training loss", "Validation loss"):
        chart = text[text.index(f"{title}</h2>") :]
        assert [chart[: chart.index("</svg>")].count(f"<title>{name}</title>") for name in ("sports", "beauty_sports")] == [1, 1]


def test_no_data_set_no_users_and_no_training_no_curves(workspace: Workspace, cli: Cli) -> None:
    a_ranking(workspace, "alone", [3, 2, 1, 0], [])
    text, _ = report(cli, "alone")
    assert "Some users" not in text
    assert "Training loss" not in text
    assert "Validation loss" not in text


def test_a_torn_curve_is_left_out_and_told(workspace: Workspace, cli: Cli) -> None:
    data = a_domain(workspace)
    adapter = an_adapter(workspace, "sports", data, ['{"step": 1, "loss": 3.0}', '{"step": 2, "lo'])
    a_ranking(workspace, "own", [3, 2, 1, 0], [data, adapter])
    text, err = report(cli, "own")
    assert "Training loss" not in text
    assert "Validation loss" in text
    assert "loss.jsonl cannot be read" in err
    assert "Six users of 9, drawn at random (seed 42)" in text
