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
