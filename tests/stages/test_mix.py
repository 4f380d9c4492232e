import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recmerge.data.training_set import read_training_set
from recmerge.runs import Workspace, resolve

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def three(cli: Cli, workspace: Workspace, table_domain: Callable[..., Path]) -> Workspace:
    for name in ("sports", "beauty", "toys"):
        assert cli("data", "build", name, "--config", table_domain(name), "--quiet")[0] == 0
    return workspace


def mix(cli: Cli, *words: object) -> dict[str, object]:
    code, out, err = cli("data", "mix", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_one_hybrid_per_source_named_alphabetically(cli: Cli, three: Workspace) -> None:
    document = mix(cli, "sports", "toys", "beauty")
    assert [r["name"] for r in document["runs"]] == ["sports_toys", "beauty_sports"]
    assert three.run_names("mix") == ["beauty_sports", "sports_toys"]


def test_a_hybrid_is_made_once_for_both_directions(cli: Cli, three: Workspace) -> None:
    first = mix(cli, "sports", "beauty")
    second = mix(cli, "beauty", "sports")
    union = mix(cli, "beauty", "sports", "--union")
    assert [d["already_done"] for d in (first, second, union)] == [False, True, True]
    assert first["run_dir"] == second["run_dir"] == union["run_dir"]


def test_a_union_holds_all(cli: Cli, three: Workspace) -> None:
    document = mix(cli, "sports", "toys", "beauty", "--union")
    assert document["name"] == "beauty_sports_toys"
    assert document["facts"]["domains"] == ["beauty", "sports", "toys"]


def test_either_spelling_reads_the_set(cli: Cli, three: Workspace) -> None:
    mix(cli, "sports", "beauty")
    found = resolve(three, "sports_beauty", ["mix"], wanted="mix")
    training_set = read_training_set(found.path, found.manifest, three)
    assert sorted(training_set.domains) == ["beauty", "sports"]
    assert training_set.rows.columns == ["domain", "user_id", "position", "target", "candidates"]
    alone = resolve(three, "sports", ["build", "mix"])
    rows = read_training_set(alone.path, alone.manifest, three).rows
    assert rows["domain"].unique().to_list() == ["sports"]
    assert rows.height == training_set.rows.filter(training_set.rows["domain"] == "sports").height


def test_a_changed_domain_is_noticed(cli: Cli, three: Workspace) -> None:
    mix(cli, "sports", "beauty")
    manifest = three.root / "data/processed/sports/v001/manifest.json"
    manifest.write_text(manifest.read_text().replace('"content_sha256": "', '"content_sha256": "0'))
    code, _, err = cli("data", "check", "sports_beauty")
    assert code == 4
    assert "is not the one it was" in err


def test_the_newest_version_of_a_domain_makes_another_set(cli: Cli, three: Workspace, tmp_path: Path) -> None:
    mix(cli, "sports", "beauty")
    assert cli("data", "build", "sports", "--config", tmp_path / "tables/sports.yaml", "--seed", 1, "--quiet")[0] == 0
    newer = mix(cli, "sports", "beauty")
    older = mix(cli, "sports@v001", "beauty")
    assert (newer["version"], newer["already_done"]) == ("v002", False)
    assert (older["version"], older["already_done"]) == ("v001", True)


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["sports", "sports"], 2, "different domains"),
        (["sports", "beauty", "--cap", "10"], 2, "--name NAME"),
        (["sports", "beauty", "--set", "caps.sports=10"], 2, "--name NAME"),
        (["sports", "beauty", "--set", "caps.sport=10", "--name", "x"], 2, "did you mean 'sports'"),
        (["sports", "beauty", "toys", "--name", "x"], 2, "cannot name 2 sets"),
        (["sports", "health"], 4, "recmerge data build health"),
        (["sports", "beauty", "--set", "cap=0"], 2, "cap"),
    ],
)
def test_errors(cli: Cli, three: Workspace, words: list[str], code: int, what: str) -> None:
    got, _, err = cli("data", "mix", *words)
    assert got == code
    assert what in err
    assert three.run_names("mix") == []


def test_other_caps_under_a_name_of_their_own(cli: Cli, three: Workspace) -> None:
    document = mix(cli, "sports", "beauty", "--set", "caps.sports=10", "--name", "skewed")
    assert document["name"] == "skewed"
    assert document["facts"]["rows"]["sports"] == 10


def test_profiles_are_not_mixed(cli: Cli, three: Workspace, tmp_path: Path) -> None:
    words = ("--config", tmp_path / "tables/toys.yaml", "--profile", "published", "--name", "toys-pub", "--quiet")
    assert cli("data", "build", "toys", *words)[0] == 0
    code, _, err = cli("data", "mix", "sports", "toys-pub")
    assert code == 3
    assert "toys-pub is published" in err
