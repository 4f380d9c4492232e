"""`recmerge eval --calibrate`: twins, what metrics.json and the report hold, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import answer, refusal
from rankings import rank

from recmerge.runs import Workspace


@pytest.fixture
def two(workspace: Workspace) -> Workspace:
    for split in ("valid", "test"):
        rank(workspace, "sports-left", split, weight=0.9)
        rank(workspace, "sports-right", split, weight=0.1)
    return workspace


def test_each_run_gets_a_temperature_from_its_own_twin(two: Workspace, cli: Any) -> None:
    made = answer(cli, "eval", "sports-left", "--baseline", "sports-right", "--calibrate")
    found = made["calibration"]
    assert list(found) == ["sports-left", "sports-right"]
    for figures in found.values():
        assert figures["n_fitted_on"] == 60
        assert figures["log_loss"] < figures["log_loss_of_chance"] == pytest.approx(1.7917594692280550)
    folder = Path(made["run_dir"])
    assert json.loads((folder / "metrics.json").read_text())["calibration"] == found
    page = (folder / "report.html").read_text()
    assert "Scores as probabilities" in page
    assert f"{found['sports-left']['ece']:.4f}" in page
    inputs = {i["role"] for i in json.loads((folder / "manifest.json").read_text())["inputs"]}
    assert sum(role.startswith("valid:") for role in inputs) == 2
    assert "calibration" not in answer(cli, "eval", "sports-left", "--name", "plain")


def test_beside_a_fusion_of_the_same_runs(two: Workspace, cli: Any) -> None:
    made = answer(cli, "eval", "sports-left", "--fuse", "left,right", "--set", "fusion_model=logit", "--calibrate")
    assert set(made["calibration"]) == {"sports-left", "sports-right"}


def test_without_a_twin_the_command_that_makes_it_is_named(two: Workspace, cli: Any) -> None:
    rank(two, "sports-far", "test", weight=0.5, normalize="pmi", ranker=None, adapter="sports")
    code, err = refusal(cli, "eval", "sports-far", "--calibrate")
    assert code == 4
    assert "recmerge infer sports --adapter sports --set normalize=pmi --split valid --name sports-far-valid" in err


def test_written_answers_and_result_files_are_refused(two: Workspace, cli: Any, tmp_path: Path) -> None:
    path = rank(two, "sports-written", "test", weight=0.5)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["facts"]["mode"] = "generate"
    (path / "manifest.json").write_text(json.dumps(manifest))
    code, err = refusal(cli, "eval", "sports-written", "--calibrate")
    assert code == 2
    assert "written answers, not a score for every candidate" in err
    (tmp_path / "r.jsonl").write_text('"a"\n')
    code, err = refusal(cli, "eval", "--result-jsonl", tmp_path / "r.jsonl", "--test-jsonl", tmp_path / "r.jsonl", "--calibrate")
    assert code == 2
    assert "has no scores" in err
