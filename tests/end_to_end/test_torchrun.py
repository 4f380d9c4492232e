"""Two processes under torchrun train one adapter: the first writes the run, both compute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recmerge.cli.main import main
from tests.conftest import write_domain_tables


@pytest.mark.slow
def test_two_processes_write_one_run(tmp_path: Path, tiny_base: Path) -> None:
    config = write_domain_tables(tmp_path / "tables", "sports")
    assert main(["data", "build", "sports", "--config", str(config), "--workspace", str(tmp_path), "--quiet"]) == 0
    settings = ["steps=4", "save_every=2", "batch_size=8", "micro_batch_size=2", "prompt.max_length=128"]
    words = ["train", "sports", "--base", str(tiny_base), "--name", "two", "--device", "cpu", "--json", *(w for s in settings for w in ("--set", s))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "recmerge", *words]
    environment = {**os.environ, "RECMERGE_WORKSPACE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)  # exactly one: the second process prints nothing
    folder = tmp_path / "runs/train/two"
    assert [p.name for p in folder.iterdir()] == ["v001"]
    assert document["version"] == "v001"
    assert len((folder / "v001/loss.jsonl").read_text().splitlines()) == 4
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["already_done"] is True
