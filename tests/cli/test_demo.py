import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from recmerge.config import loader
from recmerge.runs import Workspace

FLOORS = """# floors alone
name: demo
data: {config: sample, domains: [sports]}
infer: {set: {users: 50}}
targets: [sports]
systems:
  popularity: {ranker: popularity}
  random: {ranker: random}
baseline: random
"""


@pytest.fixture
def small_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ship a demo of floors alone: the real one trains for minutes."""
    shipped = tmp_path / "configs"
    shutil.copytree(loader.shipped_dir() / "data", shipped / "data")
    (shipped / "ablate").mkdir()
    (shipped / "ablate" / "demo.yaml").write_text(FLOORS, encoding="utf-8")
    monkeypatch.setattr(loader, "shipped_dir", lambda: shipped)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def test_the_demo_makes_a_workspace_and_a_report(small_demo: None, workspace: Workspace, cli: Any):
    code, out, err = cli("demo", "--out", "shop")
    assert (code, out) == (0, "")
    lines = err.splitlines()
    for command in ("[1/4] recmerge data build sports --config sample", "[2/4] recmerge infer sports --ranker popularity --name sports-popularity"):
        assert any(line.startswith(command) for line in lines)
    for text in ("popularity", "random", "chance (random order)"):
        assert any(text in line for line in lines if line.startswith("│"))
    root = workspace.root / "shop"
    assert sorted(p.name for p in root.iterdir()) == ["data", "report.html", "runs"]
    assert "recmerge data build sports --config sample" in (root / "report.html").read_text(encoding="utf-8")
    assert lines[-1].startswith("next: recmerge ")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert [p.name for p in workspace.root.iterdir()] == ["shop"]

    code, out, _ = cli("demo", "--out", "shop", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["already_done"] is True
    assert document["cells"] == {"done": 0, "already done": 4, "failed": 0, "skipped": 0}
    assert document["report"] == str(root / "report.html")


def test_a_dry_run_names_every_command_and_writes_nothing(small_demo: None, workspace: Workspace, cli: Any):
    code, out, _ = cli("demo", "--dry-run")
    assert code == 0
    assert out.splitlines()[0] == "recmerge data build sports --config sample"
    assert out.splitlines()[-1] == "# 4 commands (1 build, 0 mix, 0 train, 0 merge, 2 infer, 1 eval), 0 already done"
    assert list(workspace.root.iterdir()) == []

    assert cli("demo", "--out", "shop")[0] == 0
    code, out, _ = cli("demo", "--out", "shop", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["done"] == 4


def test_popularity_is_no_random_order(small_demo: None, workspace: Workspace, cli: Any):
    code, out, _ = cli("demo", "--json", "--set-nothing")
    assert code == 2
    code, out, _ = cli("demo", "--json")
    rows = {row["system"]: row for row in json.loads(out)["table"]}
    assert code == 0
    assert rows["popularity"]["n_users"] == 50
    assert rows["chance (random order)"]["metrics"]["hr@5"]["value"] == pytest.approx(5 / 30)
    assert rows["random"]["is_baseline"]
    assert (workspace.root / "demo" / "report.html").is_file()


def test_workspace_does_not_go_with_demo(workspace: Workspace, cli: Any):
    code, _, err = cli("demo", "--workspace", str(workspace.root))
    assert code == 2
    assert "give --out DIR" in err
