import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recmerge.runs import Workspace, resolve

Cli = Callable[..., tuple[int, str, str]]
TableDomain = Callable[..., Path]


def test_build_writes_a_complete_run_and_names_the_next_command(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    code, out, err = cli("data", "build", "sports", "--config", table_domain("sports"))
    assert (code, out) == (0, "")
    assert err.rstrip().endswith("next: recmerge train sports")
    found = resolve(workspace, "sports", ["build"], wanted="domain")
    facts = found.manifest.facts
    assert facts["domains"] == ["sports"]
    assert facts["counts"]["users"] == 60
    assert facts["titles"]["decoded"] == 40
    assert facts["candidates"]["n"] == 30
    assert sorted(o["path"] for o in found.manifest.outputs) == sorted(
        ["domain.json", "items.parquet", "events.parquet", "users.parquet", "rows.parquet", "candidates.parquet"]
    )


def test_the_same_build_is_done_once_wherever_the_files_lie(cli: Cli, workspace: Workspace, table_domain: TableDomain, tmp_path: Path) -> None:
    config = table_domain("sports")
    assert cli("data", "build", "sports", "--config", config)[0] == 0
    moved = tmp_path / "moved"
    config.parent.rename(moved)
    code, out, _ = cli("data", "build", "sports", "--config", moved / config.name, "--json")
    document = json.loads(out)
    assert (code, document["version"], document["already_done"]) == (0, "v001", True)
    assert json.loads(cli("data", "build", "sports", "--config", moved / config.name, "--json", "--seed", 7)[1])["version"] == "v002"
    again = json.loads(cli("data", "build", "sports", "--config", moved / config.name, "--json", "--again")[1])
    assert (again["version"], again["already_done"]) == ("v003", False)
    digest = {o["path"].rsplit("/", 1)[1]: o["sha256"] for o in again["outputs"]}
    first = workspace.root / "data/processed/sports/v001"
    assert all(hashlib.sha256((first / name).read_bytes()).hexdigest() == sha for name, sha in digest.items())


def test_several_domains_share_a_config(cli: Cli, workspace: Workspace) -> None:
    code, out, _ = cli("data", "build", "toys", "beauty", "--config", "sample", "--users", 2000, "--json", "--set", "k_core=3")
    assert code == 0
    assert [r["name"] for r in json.loads(out)["runs"]] == ["toys", "beauty"]
    inputs = resolve(workspace, "toys", ["build"]).manifest.inputs
    assert inputs[0]["path"] == "package:sample/toys/interactions.csv.gz"


def test_the_bundled_sample_loses_nothing(cli: Cli, workspace: Workspace) -> None:
    code, out, _ = cli("data", "build", "sports", "--config", "sample", "--json")
    facts = json.loads(out)["facts"]
    assert code == 0
    assert set(facts["dropped_events"].values()) == {0}
    assert (facts["counts"]["users"], facts["counts"]["items"], facts["counts"]["events"]) == (4392, 1916, 35866)


def test_the_real_data_keeps_its_published_sizes(cli: Cli, workspace: Workspace, shared: Path) -> None:
    folder = shared / "data" / "amazon2014" / "food"
    flags = ["--config", "table", "--interactions", folder / "interactions.csv.gz", "--items", folder / "items.csv.gz"]
    code, out, _ = cli("data", "build", "food", *flags, "--json", "--profile", "published")
    counts = json.loads(out)["facts"]["counts"]
    assert code == 0
    assert (counts["users"], counts["items"], counts["events"]) == (14_681, 8_713, 151_254)
    assert counts["rows"] == 30_000 + 14_681
    assert json.loads(out)["facts"]["titles"]["missing"] == 52


def test_dry_run_writes_nothing(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    code, out, _ = cli("data", "build", "sports", "--config", table_domain("sports"), "--dry-run")
    assert code == 0
    assert "rows.parquet" in out
    assert list(workspace.root.iterdir()) == []


def test_a_domains_own_yaml_is_found(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    config = table_domain("health")
    (workspace.root / "health.yaml").write_text(config.read_text().replace("health_", f"{config.parent}/health_"))
    assert cli("data", "build", "health")[0] == 0
    code, _, err = cli("data", "build", "wealth")
    assert code == 2
    assert "neither --config nor a file wealth.yaml" in err
    assert "--interactions FILE" in err


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a\0b", "x" * 300, ".hidden", "a/b", ""])
def test_unsafe_domain_names_are_refused(cli: Cli, workspace: Workspace, name: str) -> None:
    code, _, err = cli("data", "build", name, "--config", "sample")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert list(workspace.root.iterdir()) == []


def test_two_domains_are_not_built_from_the_same_files(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    code, _, err = cli("data", "build", "sports", "beauty", "--config", table_domain("sports"))
    assert code == 2
    assert "from the same files" in err
    assert list(workspace.root.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["sprots", "--config", "sample"], 4, "did you mean 'sports'"),
        (["sports", "--config", "table"], 2, "needs interactions and items"),
        (["sports", "--config", "amazon2014"], 4, "recmerge data fetch amazon2014 --domains sports"),
        (["sports", "--config", "sample", "--set", "source=amazon_2014"], 2, "did you mean 'amazon2014'"),
        (["sports", "toys", "--config", "sample", "--name", "x"], 2, "cannot name 2 domains"),
        (["sports", "--config", "sample", "--set", "k_core=400"], 3, "400-core is empty"),
        (["sports", "--config", "sample", "--set", "n_candidates=5000"], 3, "n_candidates 5000 needs 4999"),
        (["sports", "--config", "sample", "--profile", "dirty"], 2, "profile"),
    ],
)
def test_errors_are_one_line(cli: Cli, workspace: Workspace, words: list[str], code: int, what: str) -> None:
    got, out, err = cli("data", "build", *words, "--quiet")
    assert (got, out) == (code, "")
    assert err.startswith("error[")
    assert what in err
    assert len(err.splitlines()) == 1


def test_rejected_lines_are_kept_and_too_many_fail(cli: Cli, workspace: Workspace, table_domain: TableDomain) -> None:
    config = table_domain("sports")
    table = config.parent / "sports_interactions.csv"
    table.write_text(table.read_text() + "u999,S001,soon\n")
    code, _, err = cli("data", "build", "sports", "--config", config)
    assert code == 3
    assert "1 timestamp_not_a_number" in err
    code, _, err = cli("data", "build", "sports", "--config", config, "--set", "max_bad=0.1")
    assert code == 0
    assert "1 of" in err
    found = resolve(workspace, "sports", ["build"])
    [reject] = [json.loads(line) for line in (found.path / "rejects.jsonl").read_text().splitlines()]
    assert (reject["file"], reject["reason"]) == ("sports_interactions.csv", "timestamp_not_a_number")


def test_every_shipped_config_loads() -> None:
    from recmerge.config.data import BuildConfig, MixConfig
    from recmerge.config.loader import load, shipped_names

    assert {"sample", "table", "published", "amazon2014", "amazon2018", "amazon2023", "movielens"} <= set(shipped_names("data"))
    for name in shipped_names("data"):
        load(BuildConfig, "data", name, {})
    for name in shipped_names("mix"):
        load(MixConfig, "mix", name, {})
