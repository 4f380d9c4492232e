"""`train` with patience: it stops by the validation loss, keeps the best adapter, and goes on after a stop."""

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import write_domain_tables
from stages.test_train import adapter_bytes, start, wait_for

from recmerge.runs import Workspace
from tests.conftest import Cli

SETTINGS = {
    **{"steps": 40, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 0.05, "scheduler": "constant", "prompt.style": "open"},
    **{"prompt.max_length": 128, "prompt.max_title_tokens": "null", "patience": 2, "eval_every": 4, "eval_buyers": 20, "save_every": 2},
}


def words(base: Path, name: str, data: str = "sports", **changes: object) -> list[str]:
    sets = [w for k, v in {**SETTINGS, **changes}.items() for w in ("--set", f"{k}={v}")]
    return ["train", data, "--base", str(base), "--name", name, *sets]


@pytest.fixture
def built(workspace: Workspace, cli: Cli) -> Workspace:
    for name in ("sports", "beauty"):
        write_domain_tables(workspace.root, name)
        assert cli("data", "build", name, "--config", f"{name}.yaml", "--quiet")[0] == 0
    assert cli("data", "mix", "sports", "beauty", "--quiet")[0] == 0
    return workspace


def curve(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "valid_loss.jsonl").read_text().splitlines()]


def test_training_stops_and_keeps_the_best_adapter(built: Workspace, tiny_base: Path, cli: Cli) -> None:
    code, out, err = cli(*words(tiny_base, "patient"), "--json")
    assert code == 0, err
    facts, run = json.loads(out)["facts"], built.root / "runs/train/patient/v001"
    measured = curve(run)
    assert [m["step"] for m in measured] == list(range(4, facts["steps"] + 1, 4))
    losses = [m["loss"] for m in measured]
    assert facts["validation_loss"] == min(losses)
    assert facts["best_step"] == measured[losses.index(min(losses))]["step"]
    waited = (facts["steps"] - facts["best_step"]) // 4
    assert waited == 2 if facts["steps"] < 40 else waited <= 2
    # an equally long training without patience ends with the adapter of the best step
    code, _, err = cli(*words(tiny_base, "plain", steps=facts["best_step"], patience="null"), "--quiet")
    assert code == 0, err
    assert adapter_bytes(run) == adapter_bytes(built.root / "runs/train/plain/v001")
    assert not (built.root / "runs/train/plain/v001/valid_loss.jsonl").exists()


def test_a_hybrid_is_chosen_by_both_sides(built: Workspace, tiny_base: Path, cli: Cli) -> None:
    assert cli(*words(tiny_base, "both", "sports_beauty", steps=4), "--quiet")[0] == 0
    (measured,) = curve(built.root / "runs/train/both/v001")
    assert sorted(measured["domains"]) == ["beauty", "sports"]
    assert measured["loss"] == pytest.approx(sum(measured["domains"].values()) / 2)


def test_a_killed_training_goes_on_to_the_same_end(built: Workspace, tiny_base: Path, cli: Cli) -> None:
    assert cli(*words(tiny_base, "straight"), "--quiet")[0] == 0
    process = start(built.root, tiny_base, "killed", *words(tiny_base, "killed")[6:], data="sports")
    wait_for(built.root / "runs/train/killed/v001/checkpoints/checkpoint-8/complete.json", process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    code, _, err = cli(*words(tiny_base, "killed"), "--resume", "--quiet")
    assert code == 0, err
    one, two = built.root / "runs/train/straight/v001", built.root / "runs/train/killed/v001"
    assert adapter_bytes(one) == adapter_bytes(two)
    assert curve(one) == curve(two)


def test_fewer_buyers_are_fewer_rows_of_the_same(built: Workspace, tiny_base: Path, cli: Cli) -> None:
    counts = {}
    for n in (5, 20):
        code, out, err = cli(*words(tiny_base, f"few{n}", "sports_beauty", steps=1, patience="null", **{"buyers.sports": n}), "--json")
        assert code == 0, err
        counts[n] = json.loads(out)["facts"]["counts"]["rows"]
    code, out, _ = cli(*words(tiny_base, "all", "sports_beauty", steps=1, patience="null"), "--json")
    assert counts[5] < counts[20] < json.loads(out)["facts"]["counts"]["rows"]
    for key, said in (("buyers.toys", "unknown domain 'toys'"), ("buyers.beauty", "buyers.beauty is 100000, and 'beauty' has 60")):
        code, out, err = cli(*words(tiny_base, "none", "sports_beauty", **{key: 100_000}))
        assert (code, out) == (2, "")
        assert said in err
        assert not (built.root / "runs/train/none/v001/manifest.json").exists()


def test_the_published_profile_has_no_validation_left(workspace: Workspace, tiny_base: Path, cli: Cli) -> None:
    write_domain_tables(workspace.root, "sports")
    assert cli("data", "build", "sports", "--config", "sports.yaml", "--profile", "published", "--quiet")[0] == 0
    code, _, err = cli(*words(tiny_base, "late"))
    assert code == 2
    assert "trains on its validation events" in err
