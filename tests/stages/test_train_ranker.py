"""`train --ranker` and `infer --ranker`: settings, what is kept of them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import answer, refusal, write_domain_tables

from recmerge.rankers import RANKERS
from recmerge.runs import Workspace


@pytest.fixture
def built(workspace: Workspace, cli: Any, tmp_path: Path) -> Path:
    """A workspace that holds `sports`; gives the YAML that built it."""
    config = write_domain_tables(tmp_path / "tables", "sports")
    assert cli("data", "build", "sports", "--config", config)[0] == 0
    return config


def test_settings_reach_the_ranker_and_the_manifest(built: Path, cli: Any) -> None:
    made = answer(cli, "train", "sports", "--ranker", "itemknn", "--set", "ranker.k=3", "--set", "ranker.decay=0.5")
    manifest = json.loads((Path(made["run_dir"]) / "manifest.json").read_text())
    assert manifest["config"]["ranker"] == "itemknn"
    assert (manifest["config"]["settings"]["k"], manifest["config"]["settings"]["decay"]) == (3, 0.5)
    card = json.loads((Path(made["run_dir"]) / "ranker" / "ranker.json").read_text())
    assert card["settings"]["settings"] == manifest["config"]["settings"]
    assert answer(cli, "train", "sports", "--ranker", "itemknn", "--set", "ranker.decay=0.5", "--set", "ranker.k=3")["already_done"]
    assert not answer(cli, "train", "sports", "--ranker", "itemknn")["already_done"]


def test_a_yaml_may_hold_them(built: Path, cli: Any, tmp_path: Path) -> None:
    alone, both = tmp_path / "alone.yaml", tmp_path / "both.yaml"
    alone.write_text("ranker: popularity\n")
    both.write_text("ranker:\n  name: itemknn\n  k: 3\n")
    assert answer(cli, "train", "sports", "--config", alone)["name"] == "sports-popularity"
    made = answer(cli, "train", "sports", "--config", both, "--set", "ranker.last_n=2")
    settings = json.loads((Path(made["run_dir"]) / "manifest.json").read_text())["config"]["settings"]
    assert (settings["k"], settings["last_n"]) == (3, 2)


def test_what_fitting_counted_is_noted(built: Path, cli: Any) -> None:
    for command in ("infer", "train"):
        assert answer(cli, command, "sports", "--ranker", "recent_popularity")["facts"]["undated_events"] == {"sports": 0}


def test_wrong_settings_are_one_line(built: Path, cli: Any, workspace: Workspace) -> None:
    train = ("train", "sports", "--ranker", "itemknn")
    for given, what in (("ranker.kk=3", "did you mean 'k'?"), ("ranker.k=0", "greater than or equal to 1"), ("ranker.k=few", "ranker.k = 'few'")):
        code, err = refusal(cli, *train, "--set", given)
        assert code == 2
        assert what in err
    code, err = refusal(cli, "train", "sports", "--set", "ranker.k=3")
    assert code == 2
    assert "'ranker.name' is missing" in err
    assert not (workspace.root / "runs").exists()


def test_what_is_not_installed_is_refused_before_anything_is_written(built: Path, cli: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RANKERS["itemknn"], "needs", ("no_such_module",))
    for words in (
        ("train", "sports", "--ranker", "itemknn"),
        ("infer", "sports", "--ranker", "itemknn"),
        ("infer", "sports", "--ranker", "itemknn", "--dry-run"),
    ):
        code, err = refusal(cli, *words)
        assert code == 2
        assert "needs no_such_module" in err
        assert "pip install 'recmerge[floors]'" in err
    assert not (workspace.root / "runs").exists()
    listed = answer(cli, "infer", "--list-rankers")
    assert "itemknn" in listed["rankers"]
    assert listed["missing"]["itemknn"] == ["no_such_module"]
    code, out, err = cli("infer", "--list-rankers")
    assert out.split() == sorted(RANKERS)
    assert "itemknn needs no_such_module" in err


def test_floors_say_that_they_can_score_a_catalogue(cli: Any) -> None:
    assert {"popularity", "tfidf", "ease", "als"} <= set(answer(cli, "infer", "--list-rankers")["whole_catalogue"])


def test_a_ranker_of_other_data_is_refused(built: Path, cli: Any) -> None:
    answer(cli, "train", "sports", "--ranker", "popularity")
    answer(cli, "data", "build", "sports", "--config", built, "--set", "seed=7")  # another version: other candidates, and it might be another split
    code, err = refusal(cli, "infer", "sports", "--ranker", "popularity")
    assert code == 4
    assert "trained on other data than build/sports@v002" in err
    assert "recmerge train sports --ranker popularity" in err
    answer(cli, "infer", "sports@v001", "--ranker", "popularity")
    answer(cli, "train", "sports", "--ranker", "popularity")
    answer(cli, "infer", "sports", "--ranker", "popularity")
