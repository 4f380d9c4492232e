"""From a name to one run."""

from pathlib import Path

import pytest

from recmerge.errors import ArtifactError, UsageError
from recmerge.runs import RunSpec, Workspace, list_runs, open_run, resolve
from recmerge.runs.resolve import same_name

TWO, THREE = ["beauty", "sports"], ["a", "b", "c_d"]


@pytest.mark.parametrize(
    ("name", "asked", "domains", "same"),
    [
        ("beauty_sports", "sports_beauty", TWO, True),
        ("sports_beauty", "beauty_sports", TWO, True),
        ("beauty_sports-qwen", "sports_beauty-qwen", TWO, True),
        ("beauty_sports-qwen", "sports_beauty", TWO, False),
        ("a_b_c_d", "c_d_a_b", THREE, True),
        ("a_b_c_d", "d_a_b_c", THREE, False),
        ("sports", "beauty", ["sports"], False),
        ("x", "x", [], True),
    ],
)
def test_either_spelling_of_a_set(name: str, asked: str, domains: list[str], same: bool) -> None:
    assert same_name(name, asked, domains) is same


def make(workspace: Workspace, stage: str, name: str, **facts: object) -> Path:
    run = open_run(workspace, RunSpec(stage, name, {}, (), "code"))
    with run:
        (run.path / "x").write_text("x")
        run.facts.update(facts)
    return run.path


def test_newest_version_named_version_stage_and_path(workspace: Workspace) -> None:
    make(workspace, "train", "sports")
    second = make(workspace, "train", "sports")
    unfinished = second.parent / "v003"
    unfinished.mkdir()
    assert resolve(workspace, "sports", ["train"]).manifest.version == "v002"
    assert resolve(workspace, "sports@v001", ["train"]).manifest.version == "v001"
    assert resolve(workspace, "train/sports@v001", ["train", "merge"]).manifest.version == "v001"
    assert resolve(workspace, str(second), ["merge"]).manifest.version == "v002"
    with pytest.raises(ArtifactError):
        resolve(workspace, "sports@v003", ["train"])


def test_a_name_that_could_mean_two_runs(workspace: Workspace) -> None:
    make(workspace, "train", "sports")
    make(workspace, "merge", "sports")
    with pytest.raises(UsageError, match=r"merge/sports@v001 or train/sports@v001"):
        resolve(workspace, "sports", ["train", "merge"])
    assert resolve(workspace, "merge/sports", ["train", "merge"]).manifest.stage == "merge"


def test_a_corrupt_manifest_hides_no_other_run(workspace: Workspace) -> None:
    make(workspace, "train", "good")
    bad = make(workspace, "train", "bad")
    (bad / "manifest.json").write_text("{")
    assert {(p.parent.name, state) for p, _, state in list_runs(workspace, ["train"])} == {("good", "complete"), ("bad", "corrupt")}
