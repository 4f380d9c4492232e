from pathlib import Path

import pytest

from recmerge.names import MANIFEST
from recmerge.runs import Input, RunSpec, Workspace, open_run, resolve
from recmerge.runs.lineage import Edge, trace, tree_lines
from recmerge.runs.manifest import input_from_file


def make(workspace: Workspace, stage: str, name: str, inputs: tuple[Input, ...], text: str = "x") -> Path:
    with open_run(workspace, RunSpec(stage, name, {}, inputs, "1")) as run:
        (run.path / "out.txt").write_text(text, encoding="utf-8")
    return run.path


def use(workspace: Workspace, stage: str, name: str, role: str) -> Input:
    return resolve(workspace, name, [stage]).as_input(role, workspace)


@pytest.fixture
def built(workspace: Workspace) -> Workspace:
    """A file, a domain made of it, two adapters on the domain, their merge."""
    raw = workspace.root / "raw.csv"
    raw.write_text("a,b\n", encoding="utf-8")
    make(workspace, "build", "toys", (input_from_file("items", raw, "raw.csv"),))
    make(workspace, "train", "one", (use(workspace, "build", "toys", "data"),), "one")
    make(workspace, "train", "two", (use(workspace, "build", "toys", "data"),), "two")
    make(workspace, "merge", "both", (use(workspace, "train", "one", "adapter-1"), use(workspace, "train", "two", "adapter-2")))
    return workspace


def test_the_whole_way_down_to_the_file(built: Workspace):
    lineage = trace(built, [resolve(built, "both", ["merge"])])
    labels = [n.label for n in lineage.nodes]
    assert labels == ["file raw.csv", "build/toys@v001", "train/one@v001", "train/two@v001", "merge/both@v001"]  # inputs first
    assert set(lineage.edges) == {
        Edge("raw.csv", "data/processed/toys/v001", "items"),
        Edge("data/processed/toys/v001", "runs/train/one/v001", "data"),
        Edge("data/processed/toys/v001", "runs/train/two/v001", "data"),
        Edge("runs/train/one/v001", "runs/merge/both/v001", "adapter-1"),
        Edge("runs/train/two/v001", "runs/merge/both/v001", "adapter-2"),
    }


def test_the_tree_does_not_repeat_what_came_before(built: Workspace):
    assert tree_lines(trace(built, [resolve(built, "both", ["merge"])]), "runs/merge/both/v001") == [
        "merge/both@v001",
        "├─ adapter-1: train/one@v001",
        "│  └─ data: build/toys@v001",
        "│     └─ items: file raw.csv",
        "└─ adapter-2: train/two@v001",
        "   └─ data: build/toys@v001 (as above)",
    ]


def test_what_is_gone_or_changed_says_so(built: Workspace):
    (built.root / "raw.csv").write_text("other\n", encoding="utf-8")
    (built.root / "runs/train/one/v001" / MANIFEST).unlink()
    states = {n.name: n.state for n in trace(built, [resolve(built, "both", ["merge"])]).nodes}
    assert states == {"both": "ok", "one": "missing", "two": "ok", "toys": "ok", "raw.csv": "changed"}
    (built.root / "raw.csv").unlink()
    assert "file raw.csv (missing)" in tree_lines(trace(built, [resolve(built, "both", ["merge"])]), "runs/merge/both/v001")[-1]


def test_two_runs_share_their_nodes(built: Workspace):
    lineage = trace(built, [resolve(built, "one", ["train"]), resolve(built, "two", ["train"])])
    assert [n.name for n in lineage.nodes] == ["raw.csv", "toys", "one", "two"]
