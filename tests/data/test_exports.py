import csv
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recmerge.data.building import build_clean, build_published
from recmerge.data.dataset import Domain
from recmerge.data.exports import export_llamafactory, export_recbole, export_trl
from recmerge.data.sources import RawTables
from recmerge.data.training_set import TrainingSet


def as_set(domain: Domain) -> TrainingSet:
    return TrainingSet("d", {"d": domain}, domain.rows.select(pl.lit("d").alias("domain"), pl.all()))


@pytest.fixture
def training_set(grid: Callable[..., RawTables]) -> TrainingSet:
    return as_set(build_clean("d", grid(n_users=20), n_candidates=10)[0])


def test_trl_rows(training_set: TrainingSet, tmp_path: Path) -> None:
    export_trl(training_set, tmp_path)
    train = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    valid = [json.loads(line) for line in (tmp_path / "valid.jsonl").read_text().splitlines()]
    assert (len(train), len(valid)) == (60, 20)
    titles = training_set.domains["d"].titles
    for row, (user, position, target, listed) in zip(train, training_set.rows.select("user_id", "position", "target", "candidates").iter_rows(), strict=True):
        system, asked = row["prompt"]
        assert (system["role"], asked["role"]) == ("system", "user")
        assert row["completion"] == [{"role": "assistant", "content": titles[target]}]
        history = training_set.domains["d"].sequences[user][:position]
        lines = asked["content"].splitlines()
        assert [line[2:] for line in lines if line.startswith("- ")] == [titles[i] for i in (*history, *listed)]
    assert valid[3]["completion"][0]["content"] == "Title 7"  # user u03 bought 3, 4, 5, 6, then 7


def test_llamafactory_files(training_set: TrainingSet, tmp_path: Path) -> None:
    export_llamafactory(training_set, tmp_path)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert set(info) == {"d_train", "d_valid"}
    for entry in info.values():
        rows = json.loads((tmp_path / entry["file_name"]).read_text())
        assert rows
        assert all(set(entry["columns"].values()) == set(row) for row in rows)
        assert all(f"- {row['output']}\n" in row["instruction"] for row in rows)


def test_recbole_files_keep_the_order_and_split(training_set: TrainingSet, tmp_path: Path) -> None:
    export_recbole(training_set, tmp_path)
    with (tmp_path / "d" / "d.inter").open() as f:
        rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert set(rows[0]) == {"user_id:token", "item_id:token", "timestamp:float", "position:float", "split:token"}
    assert len(rows) == 120
    one = sorted((r for r in rows if r["user_id:token"] == "u03"), key=lambda r: float(r["position:float"]))
    assert [r["item_id:token"] for r in one] == ["i03", "i04", "i05", "i06", "i07", "i08"]
    assert [r["split:token"] for r in one] == ["train"] * 4 + ["valid", "test"]


def test_recbole_fields_hold_no_separator(raw_tables: Callable[..., RawTables], tmp_path: Path) -> None:
    raw = raw_tables([(f"u{u}", f"i{(u + t) % 6}", t) for u in range(6) for t in range(5)], {f"i{i}": f'tab\there "{i}\nnext' for i in range(6)})
    export_recbole(as_set(build_published("d", raw, n_candidates=5)[0]), tmp_path)
    lines = (tmp_path / "d" / "d.item").read_text().splitlines()
    assert len(lines) == 7
    assert all(line.count("\t") == 3 for line in lines)
    assert lines[1].split("\t")[1] == 'tab here "0 next'


def test_published_answers_are_five_titles_and_validation_is_not_held_out(raw_tables: Callable[..., RawTables], tmp_path: Path) -> None:
    raw = raw_tables([(f"u{u}", f"i{(u + t) % 12:02d}", t) for u in range(12) for t in range(6)], {f"i{i:02d}": f"T {i}" for i in range(12)})
    training_set = as_set(build_published("d", raw, n_candidates=10)[0])
    export_trl(training_set, tmp_path)
    assert not (tmp_path / "valid.jsonl").exists()
    train = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(train) == 12 * 4
    titles = training_set.domains["d"].titles
    wanted = ["||".join(titles[i] for i in answer) for answer in training_set.rows["answer"].to_list()]
    assert [row["completion"][0]["content"] for row in train] == wanted
    assert all(w.count("||") == 4 for w in wanted)
