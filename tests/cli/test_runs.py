import json
from pathlib import Path
from typing import Any

import pytest

from recmerge.errors import GateError
from recmerge.runs import RunSpec, Workspace, open_run, resolve


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """A built domain, an adapter on it, one training that failed and one that was stopped."""
    with open_run(workspace, RunSpec("build", "toys", {"seed": 1}, (), "1")) as run:
        (run.path / "items.txt").write_text("x", encoding="utf-8")
        run.facts.update(kind="domain", domains=["toys"])
    data = resolve(workspace, "toys", ["build"]).as_input("data", workspace)
    with open_run(workspace, RunSpec("train", "toys", {}, (data,), "1")) as run:
        run.facts.update(kind="adapter", domains=["toys"])
    for error in (GateError("loss is \x1b[31mNaN"), KeyboardInterrupt()):
        with pytest.raises(type(error)), open_run(workspace, RunSpec("train", "broken", {}, (), "1")):
            raise error
    return workspace


def test_list_shows_every_run_with_its_state(filled: Workspace, cli: Any):
    code, out, err = cli("runs", "list")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert [(r[0], r[1]) for r in rows] == [
        ("build/toys@v001", "complete"),
        ("train/broken@v001", "failed"),
        ("train/broken@v002", "interrupted"),
        ("train/toys@v001", "complete"),
    ]
    assert "\x1b" not in out
    assert "loss is" in out


def test_list_as_json_and_by_stage(filled: Workspace, cli: Any):
    code, out, _ = cli("runs", "list", "--stage", "build", "--json")
    (row,) = json.loads(out)["runs"]
    assert code == 0
    assert (row["ref"], row["state"], row["facts"]) == ("build/toys@v001", "complete", {"kind": "domain", "domains": ["toys"]})
    assert Path(row["run_dir"]).is_absolute()


def test_list_of_nothing_says_what_to_do(workspace: Workspace, cli: Any):
    code, out, err = cli("runs", "list")
    assert (code, out) == (0, "")
    assert "recmerge demo" in err


def test_an_unknown_stage_is_answered_with_the_nearest(workspace: Workspace, cli: Any):
    code, _, err = cli("runs", "list", "--stage", "trian")
    assert code == 2
    assert "did you mean 'train'?" in err


def test_show_gives_the_manifest(filled: Workspace, cli: Any):
    code, out, _ = cli("runs", "show", "build/toys", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["config"] == {"seed": 1}
    assert [o["path"] for o in document["outputs"]] == ["items.txt"]


def test_show_of_a_name_that_two_stages_have_lists_both(filled: Workspace, cli: Any):
    code, _, err = cli("runs", "show", "toys")
    assert code == 2
    assert "build/toys@v001" in err
    assert "train/toys@v001" in err
    assert cli("runs", "show", "toys", "--stage", "train")[0] == 0


def test_show_of_a_run_that_failed_says_why(filled: Workspace, cli: Any):
    code, out, _ = cli("runs", "show", "broken@v001", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["state"] == "failed"
    assert document["failure"]["exit_code"] == 8
    code, _, err = cli("runs", "lineage", "broken")
    assert code == 4
    assert "interrupted" in err


def test_show_of_what_is_not_there(workspace: Workspace, cli: Any):
    code, out, err = cli("runs", "show", "nothing")
    assert (code, out) == (4, "")
    assert err.startswith("error[ARTIFACT]: no complete run")


def test_lineage_as_tree_and_as_json(filled: Workspace, cli: Any):
    _, out, _ = cli("runs", "lineage", "train/toys")
    assert out.splitlines() == ["train/toys@v001", "└─ data: build/toys@v001"]
    _, out, _ = cli("runs", "lineage", "train/toys", "--json")
    document = json.loads(out)
    assert [n["label"] for n in document["nodes"]] == ["build/toys@v001", "train/toys@v001"]
    assert document["edges"] == [{"source": "data/processed/toys/v001", "target": "runs/train/toys/v001", "role": "data"}]
    assert document["root"] == "runs/train/toys/v001"
