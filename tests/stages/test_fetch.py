import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recmerge.runs import Workspace

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    reviews = [{"reviewerID": f"U{u}", "asin": f"B{(u + t) % 40}", "unixReviewTime": t * 86_400} for u in range(40) for t in range(6)]
    items = [{"asin": f"B{i}", "title": f"Thing {i}"} for i in range(40)]
    (folder / "reviews_Beauty_5.json.gz").write_bytes(gzip.compress("\n".join(json.dumps(r) for r in reviews).encode()))
    (folder / "meta_Beauty.json.gz").write_bytes(gzip.compress("\n".join(repr(i) for i in items).encode()))
    return folder


def test_fetch_then_build(cli: Cli, workspace: Workspace, mirror: Path) -> None:
    code, out, err = cli("data", "fetch", "amazon2014", "--domains", "beauty", "--mirror", mirror)
    assert (code, out) == (0, "")
    assert err.count("licence:") == 1
    assert "next: recmerge data build beauty --config amazon2014" in err
    raw = workspace.root / "data/raw/amazon2014"
    assert set(json.loads((raw / "lock.json").read_text())["files"]) == {"reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"}
    code, out, _ = cli("data", "build", "beauty", "--config", "amazon2014", "--json")
    assert code == 0
    assert json.loads(out)["facts"]["counts"]["users"] == 40


def test_what_is_there_is_not_fetched_again_even_offline(cli: Cli, workspace: Workspace, mirror: Path) -> None:
    words = ("data", "fetch", "amazon2014", "--domains", "beauty", "--mirror", mirror, "--json")
    assert len(json.loads(cli(*words)[1])["fetched"]) == 2
    for path in mirror.iterdir():
        path.unlink()
    code, out, _ = cli(*words)
    document = json.loads(out)
    assert (code, document["fetched"], len(document["outputs"])) == (0, [], 2)


def test_dry_run_says_the_size_and_writes_nothing(cli: Cli, workspace: Workspace, mirror: Path) -> None:
    code, _, err = cli("data", "fetch", "amazon2014", "--domains", "beauty", "--mirror", mirror, "--dry-run")
    assert code == 0
    assert "2 files" in err
    assert list(workspace.root.iterdir()) == []


def test_errors(cli: Cli, workspace: Workspace, mirror: Path) -> None:
    code, _, err = cli("data", "fetch", "amazon2014", "--domains", "beauty,sports", "--mirror", mirror)
    assert code == 6
    assert "reviews_Sports_and_Outdoors_5.json.gz" in err
    assert "not here yet: reviews_Beauty_5.json.gz" in err
    assert cli("data", "fetch", "amazon2014", "--domains", "sprots", "--mirror", mirror)[0] == 2
    assert cli("data", "fetch", "amazon", "--mirror", mirror)[0] == 2
    (mirror / "meta_Beauty.json.gz").write_text("<html>no</html>")
    code, _, err = cli("data", "fetch", "amazon2014", "--domains", "beauty", "--mirror", mirror)
    assert code == 6
    assert "is a web page" in err
    assert not (workspace.root / "data/raw/amazon2014/meta_Beauty.json.gz").exists()


@pytest.fixture
def mirror2023(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror2023"
    folder.mkdir()
    events = [(f"U{u}", f"B{(u + t) % 40}", 1_588_000_000_000 + t * 86_400_123) for u in range(40) for t in range(6)]
    reviews = [json.dumps({"user_id": u, "asin": "variant", "parent_asin": i, "timestamp": t, "title": "Great"}) for u, i, t in events]
    items = [json.dumps({"parent_asin": f"B{i}", "title": f"Thing {i}", "store": None, "categories": [], "main_category": "Games"}) for i in range(40)]
    table = ["user_id,parent_asin,rating,timestamp", *(f"{u},{i},5.0,{t}" for u, i, t in events)]
    for name, lines in (("Video_Games.jsonl.gz", reviews), ("meta_Video_Games.jsonl.gz", items), ("Video_Games.csv.gz", table)):
        (folder / name).write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def test_the_5_core_and_all_reviews_share_their_items(cli: Cli, workspace: Workspace, mirror2023: Path) -> None:
    code, out, _ = cli("data", "fetch", "amazon2023", "--domains", "videogames,videogames-full", "--mirror", mirror2023, "--json")
    assert (code, json.loads(out)["fetched"]) == (0, ["Video_Games.csv.gz", "meta_Video_Games.jsonl.gz", "Video_Games.jsonl.gz"])
    counts = []
    for domain in ("videogames", "videogames-full"):
        code, out, _ = cli("data", "build", domain, "--config", "amazon2023", "--json")
        assert code == 0
        counts.append(json.loads(out)["facts"]["counts"])
    assert counts[0] == counts[1]
    assert (counts[0]["users"], counts[0]["items"], counts[0]["events"]) == (40, 40, 240)


def test_movielens_must_have_its_published_checksum(cli: Cli, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(b"PK another archive")
    code, _, err = cli("data", "fetch", "movielens", "--domains", "ml-100k", "--mirror", tmp_path)
    assert code == 6
    assert "published is 0e33842e24a9c977be4e0107933c0723" in err
    code, _, err = cli("data", "build", "ml-100k", "--config", "movielens")
    assert code == 4
    assert "recmerge data fetch movielens --domains ml-100k" in err
