import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recmerge.runs import Workspace

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def built(cli: Cli, workspace: Workspace, table_domain: Callable[..., Path]) -> Path:
    for name in ("sports", "beauty"):
        assert cli("data", "build", name, "--config", table_domain(name), "--quiet")[0] == 0
    assert cli("data", "mix", "sports", "beauty", "--quiet")[0] == 0
    return workspace.root / "data"


def leak(folder: Path, domain: Path) -> None:
    """Turn six training rows into their users' test events."""
    rows = pl.read_parquet(folder / "rows.parquet")
    test = pl.read_parquet(domain / "candidates.parquet").filter(pl.col("split") == "test")
    places = pl.read_parquet(domain / "events.parquet").filter(pl.col("split") == "test").select("user_id", "position")
    bad = test.head(6).join(places, on="user_id").select(pl.lit("sports").alias("domain"), "user_id", "position", "target", "candidates")
    pl.concat([rows, bad.select(rows.columns)]).write_parquet(folder / "rows.parquet")


def test_good_data_passes(cli: Cli, built: Path) -> None:
    code, out, err = cli("data", "check", "sports")
    assert (code, out) == (0, "")
    assert "no fault found" in err
    document = json.loads(cli("data", "check", "sports_beauty", "--json")[1])
    assert (document["faults"], document["domains"]) == (0, ["beauty", "sports"])
    assert document["run_dir"] == str(built / "mixed/beauty_sports/v001")
    assert document["notes"]["users_shared_beauty_sports"] == 60  # the made-up domains name their users alike


@pytest.mark.parametrize("name", ["sports", "beauty_sports"])
def test_a_leak_fails_with_the_first_five(cli: Cli, built: Path, name: str) -> None:
    domain = built / "processed/sports/v001"
    leak(domain if name == "sports" else built / "mixed/beauty_sports/v001", domain)
    code, out, err = cli("data", "check", name, "--quiet")
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert err.count("is a test event and a training row") == 5
    assert "more)" in err


def test_a_changed_file_fails_even_where_its_content_is_plausible(cli: Cli, built: Path) -> None:
    path = built / "processed/sports/v001/rows.parquet"
    rows = pl.read_parquet(path)
    rows.reverse().write_parquet(path)
    code, _, err = cli("data", "check", "sports", "--quiet")
    assert code == 3
    assert "rows.parquet of sports was changed after it was written" in err
    code, _, err = cli("data", "check", "sports_beauty", "--quiet")
    assert code == 3
    assert "rows.parquet of sports was changed" in err


def test_a_missing_file_or_name(cli: Cli, built: Path) -> None:
    (built / "processed/sports/v001/items.parquet").unlink()
    assert cli("data", "check", "sports")[0] == 4
    code, _, err = cli("data", "check", "sport")
    assert code == 4
    assert "did you mean 'sports'" in err


def test_stats(cli: Cli, built: Path) -> None:
    code, out, err = cli("data", "stats", "sports_beauty")
    assert (code, out) == (0, "")
    assert "beauty events per user" in err
    assert "Training and test in time" in err
    assert f"wrote {built}/stats/beauty_sports-v001.html" in err
    document = json.loads(cli("data", "stats", "sports", "--json")[1])
    assert document["domains"]["sports"]["users"] == 60
    assert document["domains"]["sports"]["candidates"] == 30
    assert document["version"] == "v001"
    [page] = document["outputs"]
    assert page["path"] == f"{built}/stats/sports-v001.html"
    text = Path(page["path"]).read_text(encoding="utf-8")
    assert page["bytes"] == len(text.encode())
    assert text.count('<svg class="chart"') == 5
    assert document["tokenizer"] == "nano"
    assert document["domains"]["sports"]["title_tokens"]["mean"] >= document["domains"]["sports"]["title_words"]["mean"]
    bare = json.loads(cli("data", "stats", "sports", "--base", "none", "--out", built.parent / "bare.html", "--json")[1])
    assert "title_tokens" not in bare["domains"]["sports"]
    assert (built.parent / "bare.html").read_text(encoding="utf-8").count('<svg class="chart"') == 4
    code, _, err = cli("data", "stats", "sports", "--base", "./nowhere")
    assert (code, err.count("\n")) == (4, 1)
    assert cli("data", "stats", "sports", "--quiet")[0] == 0  # the page of a version is always the same
    assert Path(page["path"]).read_text(encoding="utf-8") == text


def test_the_page_of_stats_goes_where_it_is_asked_to(cli: Cli, built: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "pages" / "sports.html"
    assert cli("data", "stats", "sports", "--out", out_file, "--quiet")[0] == 0
    assert "<svg" in out_file.read_text(encoding="utf-8")
    assert not (built / "stats").exists()
    out_file.write_text("mine")
    code, _, err = cli("data", "stats", "sports", "--out", out_file)
    assert (code, out_file.read_text()) == (7, "mine")
    assert "--force" in err
    assert cli("data", "stats", "sports", "--out", out_file, "--force", "--quiet")[0] == 0
    assert "<svg" in out_file.read_text(encoding="utf-8")
    assert cli("data", "stats", "sports", "--out", tmp_path / "pages", "--force")[0] == 7


def test_a_hybrid_with_a_held_out_event_of_either_domain(cli: Cli, built: Path) -> None:
    folder = built / "mixed/beauty_sports/v001"
    good = pl.read_parquet(folder / "rows.parquet")
    for name in ("sports", "beauty"):
        for split in ("test", "valid"):
            domain = built / f"processed/{name}/v001"
            held = pl.read_parquet(domain / "events.parquet").filter(pl.col("split") == split).head(1)
            asked = pl.read_parquet(domain / "candidates.parquet").filter(pl.col("split") == split).join(held.select("user_id", "position"), on="user_id")
            row = asked.select(pl.lit(name).alias("domain"), "user_id", "position", "target", "candidates")
            pl.concat([good, row.select(good.columns)]).write_parquet(folder / "rows.parquet")
            code, _, err = cli("data", "check", "sports_beauty", "--quiet")
            assert code == 3
            assert f"{name}: user {held['user_id'][0]} " in err
            assert {"test": "is a test event", "valid": "is a validation event"}[split] in err


@pytest.mark.parametrize(("form", "file"), [("trl", "train.jsonl"), ("llamafactory", "dataset_info.json"), ("recbole", "beauty/beauty.inter")])
def test_export(cli: Cli, built: Path, tmp_path: Path, form: str, file: str) -> None:
    out_dir = tmp_path / "out"
    code, out, _ = cli("data", "export", "beauty_sports", "--format", form, "--out", out_dir, "--json")
    assert code == 0
    assert str(out_dir / file) in [o["path"] for o in json.loads(out)["outputs"]]
    assert (out_dir / file).stat().st_size > 0
    code, _, err = cli("data", "export", "beauty_sports", "--format", form, "--out", out_dir)
    assert code == 7
    assert "--force" in err
    (out_dir / "mine.txt").write_text("kept")
    assert cli("data", "export", "beauty_sports", "--format", form, "--out", out_dir, "--force")[0] == 0
    assert (out_dir / "mine.txt").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_unknown_format(cli: Cli, built: Path) -> None:
    code, _, err = cli("data", "export", "sports", "--format", "recbol")
    assert code == 2
    assert "did you mean 'recbole'" in err
