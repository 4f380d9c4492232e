"""A whole ablation on small domains and a tiny base: everything trains, merges, ranks and is compared."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recmerge.cli.main import main
from recmerge.runs.manifest import read_manifest
from tests.conftest import write_domain_tables

SYSTEMS = """systems:
  popularity: {ranker: popularity}
  zero-shot: {adapter: none}
  target only: {adapter: "{target}"}
  hybrid: {adapter: "beauty_{target}"}
  broken: {ranker: no-such-ranker}
  weaverec: {merge: {target: "{target}"}}
baseline: target only
"""


@dataclass
class Swept:
    root: Path
    config: Path
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out)


def run(config: Path, root: Path, capture: pytest.CaptureFixture[str] | None = None, *more: str) -> tuple[int, str, str]:
    words = ["ablate", str(config), "--workspace", str(root), *more]
    if capture is None:
        return main(words), "", ""
    capture.readouterr()
    code = main(words)
    out, err = capture.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Swept:
    folder = tmp_path_factory.mktemp("ablation")
    for name in ("sports", "beauty"):
        write_domain_tables(folder, name, n_users=40)
    config = folder / "small.yaml"
    train = f"train: {{set: {{base: '{tiny_base}', steps: 2, max_rows: 32, lora.rank: 4, prompt: {{style: open, max_length: 96}}}}}}\n"
    head = "name: small\ndata: {config: '{domain}.yaml', domains: [sports, beauty]}\ntargets: [sports]\n"
    config.write_text(head + train + SYSTEMS, encoding="utf-8")
    root = folder / "workspace"
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["ablate", str(config), "--workspace", str(root), "--json", "--verbose"])
    return Swept(root, config, code, out.getvalue(), err.getvalue())


def test_a_failed_cell_gives_8_and_one_error_line(swept: Swept):
    assert swept.code == 8
    errors = [line for line in swept.err.splitlines() if line.startswith("error[")]
    assert len(errors) == 1
    assert "1 of 13 commands failed and 0 were skipped; first 'infer sports-broken'" in errors[0]


def test_all_other_cells_are_done(swept: Swept):
    document = swept.document
    assert document["cells"] == {"done": 12, "already done": 0, "failed": 1, "skipped": 0}
    assert [row["state"] for row in document["table"]].count("ok") == 5 + 1  # five systems and chance
    for where in ("train/sports-model", "train/beauty_sports-model", "merge/sports-weaverec"):
        assert (swept.root / "runs" / where / "v001" / "adapter" / "adapter_model.safetensors").is_file()


def test_progress_of_the_cells_is_shown(swept: Swept):
    assert "[3/13] recmerge data mix beauty sports" in swept.err
    assert "training: 2/2 loss" in swept.err


def test_the_published_files(swept: Swept):
    folder = Path(swept.document["run_dir"])
    manifest = read_manifest(folder)
    assert manifest is not None
    assert [o["path"] for o in manifest.outputs] == ["cells.json", "report.html", "table.csv", "table.md"]
    rows = list(csv.DictReader((folder / "table.csv").open(encoding="utf-8")))
    assert [r["system"] for r in rows] == ["popularity", "zero-shot", "target only", "hybrid", "broken", "weaverec", "chance (random order)"]
    for row in rows[:4]:
        assert float(row["ndcg@1_low"]) <= float(row["ndcg@1"]) <= float(row["ndcg@1_high"])
    assert abs(float(rows[-1]["ndcg@1"]) - 1 / 30) < 1e-9
    cells = json.loads((folder / "cells.json").read_text(encoding="utf-8"))["cells"]
    assert {c["state"] for c in cells} == {"done", "failed"}
    assert all((swept.root / c["run_dir"] / "manifest.json").is_file() for c in cells if c["state"] == "done")


def test_published_figures_are_those_of_the_runs_and_name_no_path(swept: Swept, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stale = tmp_path / "kept" / "small" / "gone.metrics.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}", encoding="utf-8")
    code, out, _ = run(swept.config, swept.root, capsys, "--json", "--publish", str(tmp_path / "kept"))
    assert code == 8  # the broken cell
    home = tmp_path / "kept" / "small"
    assert sorted(p.name for p in home.iterdir()) == ["small-sports.metrics.json", "source.json", "table.csv", "table.md"]
    assert (home / "table.csv").read_text() == (Path(json.loads(out)["run_dir"]) / "table.csv").read_text()
    metrics = swept.root / "runs" / "eval" / "small-sports" / "v001" / "metrics.json"
    assert (home / "small-sports.metrics.json").read_text() == metrics.read_text()
    source = json.loads((home / "source.json").read_text())
    trained = read_manifest(swept.root / "runs" / "train" / "sports-model" / "v001")
    assert trained is not None
    assert source["runs"]["train sports-model"]["content_sha256"] == trained.content_sha256
    assert source["runs"]["train sports-model"]["facts"]["steps"] == 2
    assert source["runs"]["infer sports-broken"] == {"state": "failed"}
    assert str(swept.root) not in "".join(p.read_text() for p in home.iterdir())


def test_what_was_published_stays_where_commands_failed(swept: Swept, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    kept = tmp_path / "kept" / "small"
    kept.mkdir(parents=True)
    for name in ("table.csv", "small-sports.metrics.json"):
        (kept / name).write_text("good", encoding="utf-8")
    code, _, err = run(swept.config, swept.root, capsys, "--publish", str(tmp_path / "kept"))
    assert code == 8
    assert "not published: some commands failed" in err
    assert {p.name: p.read_text() for p in kept.iterdir()} == {"table.csv": "good", "small-sports.metrics.json": "good"}


def test_figures_that_cannot_be_published(swept: Swept, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "kept").write_text("a file", encoding="utf-8")
    code, _, err = run(swept.config, swept.root, capsys, "--publish", str(tmp_path / "kept"))
    assert code == 4
    assert "cannot be published" in err


def test_the_report_stands_alone_and_shows_the_commands(swept: Swept):
    page = (Path(swept.document["run_dir"]) / "report.html").read_text(encoding="utf-8")
    for text in ("recmerge train beauty_sports", "Training loss", "NDCG@1 on sports", "From what the figures on sports came", "infer sports-broken"):
        assert text in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_every_cell_records_its_own_command(swept: Swept):
    manifest = read_manifest(swept.root / "runs" / "merge" / "sports-weaverec" / "v001")
    assert manifest is not None
    assert manifest.command[1:4] == ["merge", "--adapters", "sports-model,beauty_sports-model"]


def test_a_dry_run_counts_what_is_done(swept: Swept, capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(swept.config, swept.root, capsys, "--dry-run", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["cells"] == {"build": 2, "mix": 1, "train": 2, "merge": 1, "infer": 6, "eval": 1}
    assert document["done"] == 11  # neither the broken one nor the evaluation that wants it


def test_mended_it_does_only_what_is_missing(swept: Swept, capsys: pytest.CaptureFixture[str]):
    mended = swept.config.with_name("mended.yaml")
    mended.write_text(swept.config.read_text(encoding="utf-8").replace("no-such-ranker", "random"), encoding="utf-8")
    code, out, _ = run(mended, swept.root, capsys, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["cells"] == {"done": 2, "already done": 11, "failed": 0, "skipped": 0}  # the ranking and the evaluation
    again, out, _ = run(mended, swept.root, capsys, "--json")
    assert again == 0
    assert json.loads(out)["already_done"] is True
    assert json.loads(out)["version"] == document["version"]


def test_processes_of_their_own_find_the_same_work_done(swept: Swept, capsys: pytest.CaptureFixture[str]):
    floors = swept.config.with_name("floors.yaml")
    text = "name: floors\ndata: {config: '{domain}.yaml', domains: [sports]}\ntargets: [sports]\nsystems: {popularity: {ranker: popularity}, x: {ranker: no}}\n"
    floors.write_text(text, encoding="utf-8")
    code, out, _ = run(floors, swept.root, capsys, "--json", "--jobs", "2")
    assert code == 8
    document = json.loads(out)
    assert document["cells"] == {"done": 1, "already done": 2, "failed": 1, "skipped": 0}
    assert document["failed"]["infer sports-x"].startswith("error[USAGE]: unknown ranker 'no'")


def test_nothing_succeeds(workspace: Any, cli: Any, table_domain: Any):
    config = table_domain("toys")
    (config.parent / "toys_items.csv").unlink()
    bad = config.with_name("bad.yaml")
    bad.write_text("name: bad\ndata: {config: toys.yaml, domains: [toys]}\ntargets: [toys]\nsystems: {floor: {ranker: random}}\n", encoding="utf-8")
    code, out, err = cli("ablate", bad)
    assert code == 4
    assert out == ""
    assert [line for line in err.splitlines() if line.startswith("error[ARTIFACT]: no command of the ablation succeeded")]
    assert not (workspace.root / "runs" / "ablate").exists()
