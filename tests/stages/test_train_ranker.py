"""`train --ranker` and `infer --ranker`: settings, what is kept of them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import answer, refusal, write_domain_tables

from recmerge.rankers import RANKERS, ranker_sources
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


def test_a_slow_ranker_is_trained_before_it_is_asked(built: Path, cli: Any, workspace: Workspace) -> None:
    code, err = refusal(cli, "infer", "sports", "--ranker", "sasrec")
    assert code == 4
    assert "ranker 'sasrec' is not trained on 'sports'" in err
    assert "recmerge train sports --ranker sasrec" in err
    assert not (workspace.root / "runs").exists()
    quick = ("--set", "ranker.epochs=1", "--set", "ranker.width=8")
    made = answer(cli, "train", "sports", "--ranker", "sasrec", *quick)
    assert made["facts"]["training"]["sports"]["epochs"] == 1
    assert answer(cli, "train", "sports", "--ranker", "sasrec", *quick, "--device", "cpu")["already_done"]  # where it is computed is not what
    asked = answer(cli, "infer", "sports", "--ranker", "sasrec")
    again = answer(cli, "infer", "sports", "--ranker", "sports-sasrec@v001")  # the same by the name of its run
    assert (again["name"], again["already_done"]) == (asked["name"], True)


def test_the_shipped_settings_of_a_ranker_are_those_of_its_name(built: Path, cli: Any) -> None:
    by_name = answer(cli, "train", "sports", "--ranker", "sasrec", "--dry-run")
    by_config = answer(cli, "train", "sports", "--config", "sasrec", "--dry-run")
    assert by_name["config"] == by_config["config"]
    assert by_name["config"]["settings"]["negatives"] == 512  # as configs/train/sasrec.yaml has it, not the default


def test_a_set_of_domains_teaches_one_ranker_that_knows_each(built: Path, cli: Any, workspace: Workspace, tmp_path: Path) -> None:
    answer(cli, "data", "build", "beauty", "--config", write_domain_tables(tmp_path / "more", "beauty"))
    answer(cli, "data", "mix", "beauty", "sports")
    _, _, told = cli("train", "sports_beauty", "--ranker", "itemknn")
    assert "next: recmerge infer sports --ranker beauty_sports-itemknn" in told
    made = answer(cli, "train", "sports_beauty", "--ranker", "itemknn")
    assert made["facts"]["domains"] == ["beauty", "sports"]
    for domain in ("sports", "beauty"):
        of_both = answer(cli, "infer", domain, "--ranker", made["name"])
        alone = answer(cli, "infer", domain, "--ranker", "itemknn")
        assert of_both["name"] != alone["name"]
        kept, scored = ((Path(run["run_dir"]) / "rankings.parquet").read_bytes() for run in (of_both, alone))
        assert kept == scored  # these learn domain by domain
    answer(cli, "data", "build", "sports", "--config", built, "--set", "seed=7")
    code, err = refusal(cli, "infer", "sports", "--ranker", made["name"])
    assert code == 4
    assert "trained on other data than build/sports@v002" in err


def test_what_is_neither_a_ranker_nor_a_run_gets_the_nearest(built: Path, cli: Any) -> None:
    code, err = refusal(cli, "infer", "sports", "--ranker", "itemkn")
    assert code == 2
    assert "did you mean 'itemknn'" in err


def test_another_rankers_code_does_not_make_a_ranking_new() -> None:
    assert "rankers/itemknn.py" in ranker_sources("itemknn")
    assert "rankers/per_domain.py" in ranker_sources("itemknn")  # which it imports
    assert "rankers/protocol.py" in ranker_sources("itemknn")  # which that imports
    assert not {"rankers/ease.py", "rankers/sasrec.py"} & set(ranker_sources("itemknn"))
    assert "rankers/sequential/training.py" in ranker_sources("sasrec")
    assert {"lm/scoring.py", "data/prompts.py"} <= set(ranker_sources("tallrec"))
