"""A global time split, from `data build` to the metrics."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import polars as pl
import pytest

from recmerge.data.dataset import Domain, read_domain
from recmerge.errors import GateError
from recmerge.runs import Workspace, resolve
from recmerge.runs.resolve import Found
from recmerge.stages.refusals import refuse_later_training

Cli = Callable[..., tuple[int, str, str]]
TableDomain = Callable[..., Path]
CUTS = ("--split", "time", "--set", "valid_from=2013-02-01", "--set", "test_from=2013-06-15")


def build(cli: Cli, config: Path, name: str, *words: str) -> dict[str, object]:
    code, out, err = cli("data", "build", name, "--config", config, "--json", *words)
    assert code == 0, err
    return json.loads(out)["facts"]


def domain(workspace: Workspace, name: str) -> Domain:
    return read_domain(resolve(workspace, name, ["build"]).path)


def test_shares_give_the_cuts(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    facts = build(cli, table_domain("sports"), "sports", "--split", "time", "--set", "test_share=0.2")
    built = domain(workspace, "sports")
    times = built.events["timestamp"].sort()
    n = len(times)
    assert built.cuts is not None
    assert (built.cuts.valid, built.cuts.test) == (times[int(0.7 * n)], times[int(0.8 * n)])
    split = facts["split"]
    assert isinstance(split, dict)
    assert (split["kind"], split["valid_from"], split["test_from"]) == ("time", built.cuts.valid, built.cuts.test)
    assert sum(split["events"].values()) == n
    assert facts["future"] == {
        "test_users": split["events"]["test"],
        "test_users_training_after_tests": 0,
        "test_users_tested_before_training": 0,
        "train_share_after_median_test": 0.0,
    }


def test_dates_give_the_cuts_and_nothing_trains_behind_them(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    config = table_domain("sports")
    build(cli, config, "sports", *CUTS)
    built = domain(workspace, "sports")
    valid, test = 1_359_676_800, 1_371_254_400  # midnights of these days, UTC
    assert built.cuts is not None
    assert (built.cuts.valid, built.cuts.test) == (valid, test)
    placed = built.rows.join(built.events, on=["user_id", "position"])
    assert placed["timestamp"].max() < valid
    assert placed["item_id"].to_list() == placed["target"].to_list()
    first = built.events.filter(pl.col("timestamp") >= test).sort("user_id", "position").unique("user_id", keep="first", maintain_order=True)
    wanted = first.filter(pl.col("position") > 0).select("user_id", "item_id").rows()
    assert built.candidates.filter(pl.col("split") == "test").sort("user_id").select("user_id", "target").rows() == wanted
    assert build(cli, config, "sports", "--split", "time", "--set", f"valid_from={valid}", "--set", f"test_from={test}")["split"]
    assert workspace.versions("build", "sports")[-1].name == "v001"  # seconds say the same as dates


def test_negatives_are_items_that_were_there(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    config = table_domain("sports", n_users=200)
    table = config.parent / "sports_interactions.csv"
    head, *lines = table.read_text().splitlines()
    late = {f"S{i:03d}" for i in range(5)}  # five items appear in the validation period
    kept = [line for line in lines if line.split(",")[1] not in late or int(line.split(",")[2]) >= 1_359_676_800]
    table.write_text("\n".join([head, *kept]) + "\n")
    build(cli, config, "sports", *CUTS, "--set", "n_candidates=20", "--set", "k_core=3")
    built = domain(workspace, "sports")
    assert late <= set(built.titles)
    assert not late & set(built.rows["candidates"].explode())
    assert late & set(built.candidates["candidates"].explode())
    assert cli("data", "check", "sports")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--split", "tiem"], 2, "'leave_one_out' or 'time'"),
        (["--split", "time", "--profile", "published"], 2, "leave_one_out alone"),
        (["--split", "time", "--set", "test_share=0.95"], 2, "below 1"),
        (["--split", "time", "--set", "valid_share=0.95"], 2, "below 1"),
        (["--split", "time", "--set", "valid_from=2013-02-01"], 2, "set together"),
        (["--split", "time", "--set", "valid_from=last year", "--set", "test_from=1"], 2, "UTC date such as 2013-06-01"),
        (["--split", "time", "--set", "valid_from=2013-02-01", "--set", "test_from=2013-02-01"], 2, "later than valid_from"),
        (["--set", "valid_from=2013-02-01", "--set", "test_from=2013-03-01"], 2, "the split is leave_one_out"),
        (["--split", "time", "--set", "valid_from=1999-02-01", "--set", "test_from=1999-03-01"], 3, "leave no training rows and no valid users"),
        (["--split", "time", "--set", "valid_from=2012-02-01", "--set", "test_from=2039-03-01"], 3, "leave no test users: the events are of 2011-"),
    ],
)
def test_errors_are_one_line(cli: Cli, workspace: Workspace, table_domain: TableDomain, words: list[str], code: int, what: str) -> None:
    got, out, err = cli("data", "build", "sports", "--config", table_domain("sports"), "--quiet", *words)
    assert (got, out) == (code, "")
    assert len(err.splitlines()) == 1
    assert what in err


def test_blank_times_are_refused_and_counted(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    config = table_domain("sports")
    table = config.parent / "sports_interactions.csv"
    head, *lines = table.read_text().splitlines()
    table.write_text("\n".join([head, *(line.rpartition(",")[0] + "," if i < 7 else line for i, line in enumerate(lines))]) + "\n")
    code, _, err = cli("data", "build", "sports", "--config", config, "--quiet", "--split", "time")
    assert code == 3
    assert f"7 of {len(lines)} events have none" in err
    assert cli("data", "build", "sports", "--config", config, "--quiet")[0] == 0


def test_real_sports_is_refused_for_its_blank_times(cli: Cli, workspace: Workspace, shared: Path) -> None:
    folder = shared / "data" / "amazon2014" / "sports"
    flags = ["--config", "table", "--interactions", folder / "interactions.csv.gz", "--items", folder / "items.csv.gz"]
    code, _, err = cli("data", "build", "sports", *flags, "--split", "time", "--quiet")
    assert code == 3
    assert "2,937 of 296,337 events have none" in err


def test_the_build_says_what_leave_one_out_lets_through(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    config = table_domain("sports")
    future = build(cli, config, "sports")["future"]
    assert isinstance(future, dict)
    err = cli("data", "build", "sports", "--config", config, "--again")[2]
    assert f"leave-one-out sees the future: {future['test_users_training_after_tests']} of 60 test users" in err
    assert f"{future['test_users_tested_before_training']} are tested before a training event of another user" in err
    err = cli("data", "build", "sports", "--config", config, *CUTS)[2]
    assert "split by time: training before 2013-02-01, test from 2013-06-15" in err


def test_only_domains_of_one_split_are_mixed(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    sports, beauty = table_domain("sports"), table_domain("beauty")
    build(cli, sports, "sports", "--split", "time")
    build(cli, beauty, "beauty", "--split", "time")
    cuts = [domain(workspace, name).cuts for name in ("sports", "beauty")]
    assert cuts[0] != cuts[1]
    code, _, err = cli("data", "mix", "sports", "beauty", "--quiet")
    assert code == 3
    assert len(err.splitlines()) == 1
    assert workspace.run_names("mix") == []
    fix = err.partition("fix: build each with ")[2].split()
    for config, name in ((sports, "sports"), (beauty, "beauty")):
        build(cli, config, name, *fix)
    assert cli("data", "mix", "sports", "beauty", "--quiet")[0] == 0
    assert cli("data", "check", "sports_beauty", "--quiet")[0] == 0
    assert min(c.valid for c in cuts if c) == min(domain(workspace, name).cuts.valid for name in ("sports", "beauty"))
    build(cli, beauty, "beauty")
    code, _, err = cli("data", "mix", "sports", "beauty", "--quiet")
    assert code == 3
    assert "beauty is split by leave_one_out" in err


def test_training_ranking_and_evaluation_go_on_from_it(cli: Cli, workspace: Workspace, table_domain: TableDomain, tiny_base: Path) -> None:
    for name in ("sports", "beauty"):
        build(cli, table_domain(name), name, *CUTS)
    assert cli("data", "mix", "sports", "beauty", "--quiet")[0] == 0
    quick = ("--set", "steps=2", "--set", "batch_size=4", "--set", "micro_batch_size=4", "--set", "prompt.max_length=128", "--quiet")
    assert cli("train", "sports_beauty", "--base", tiny_base, *quick)[0] == 0
    split = domain(workspace, "sports").candidates["split"].value_counts()
    n_asked = dict(split.rows())
    adapter = workspace.run_names("train")[0]
    for words in (("--adapter", adapter), ("--ranker", "popularity"), ("--ranker", "cooccurrence")):
        code, out, err = cli("infer", "sports", *words, "--json")
        assert code == 0, err
        assert json.loads(out)["facts"]["n_users"] == n_asked["test"]
    code, out, err = cli("infer", "sports", "--ranker", "popularity", "--split", "valid", "--json")
    assert (code, json.loads(out)["facts"]["n_users"]) == (0, n_asked["valid"])
    code, out, err = cli("eval", "sports-popularity", "sports-cooccurrence", "--json")
    assert code == 0, err
    metrics = json.loads((Path(json.loads(out)["run_dir"]) / "metrics.json").read_text())
    assert metrics["n_users"] == n_asked["test"]
    lengths = domain(workspace, "sports").events.filter(pl.col("split") == "test")["position"]
    n_short = lengths.is_between(1, 4).sum()
    assert 0 < n_short <= len(lengths) == n_asked["test"]
    assert metrics["slices"]["history_1-4"]["n_users"] == n_short
    for form in ("trl", "llamafactory", "recbole"):
        assert cli("data", "export", "sports_beauty", "--format", form, "--quiet")[0] == 0


TIME = {"kind": "time", "valid_from": 100, "test_from": 200}


@pytest.mark.parametrize(
    ("splits", "domains", "asked", "refused"),
    [
        ([{}], ["sports"], {"kind": "leave_one_out"}, False),
        ([{"valid_from": 100, "test_from": 200}], ["sports"], TIME, False),
        ([{"valid_from": 90, "test_from": 200}], ["beauty"], TIME, False),  # stopped before
        ([{}], ["sports"], TIME, True),
        ([{}], ["beauty"], TIME, True),  # another domain's future
        ([{"valid_from": 100, "test_from": 201}], ["sports"], TIME, True),
        ([{"valid_from": 101, "test_from": 200}], ["sports"], TIME, True),
        ([{"valid_from": 100, "test_from": 200}, {}], ["sports"], TIME, True),  # one of the merged ones
        ([{"valid_from": 100, "test_from": 200}], ["sports"], {"kind": "leave_one_out"}, True),
        ([{"valid_from": 100, "test_from": 200}], ["beauty"], {"kind": "leave_one_out"}, False),
        ([], ["sports"], TIME, False),  # made elsewhere
    ],
)
def test_who_was_taught_behind_the_cut_is_refused(splits: list[dict[str, int]], domains: list[str], asked: dict[str, object], refused: bool) -> None:
    manifest = SimpleNamespace(name="sports", facts={"domains": ["sports"], "split": asked})
    found = cast(Found, SimpleNamespace(manifest=manifest))
    card = {"splits": splits, "domains": domains}
    if refused:
        with pytest.raises(GateError, match="it would be asked about purchases that it knows"):
            refuse_later_training(card, found)
    else:
        refuse_later_training(card, found)


def test_an_adapter_of_a_leave_one_out_set_is_not_asked_about_a_time_split(cli: Cli, workspace: Workspace, table_domain: TableDomain, tiny_base: Path) -> None:
    config = table_domain("sports")
    build(cli, config, "sports")
    quick = ("--set", "steps=1", "--set", "batch_size=4", "--set", "micro_batch_size=4", "--set", "prompt.max_length=128", "--quiet")
    assert cli("train", "sports", "--base", tiny_base, "--name", "early", *quick)[0] == 0
    assert cli("merge", "--adapters", "early,early", "--name", "woven", "--quiet")[0] == 0
    build(cli, config, "sports", *CUTS)
    for adapter in ("early", "woven"):
        code, _, err = cli("infer", "sports", "--adapter", adapter)
        assert code == 8
        assert "split by leave_one_out, 'sports' is split at 2013-02-01 and 2013-06-15" in err
