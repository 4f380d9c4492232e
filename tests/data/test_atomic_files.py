"""RecBole's atomic files, read back by the rules of its documentation, with pandas as its own reader uses it."""

import csv
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import polars as pl
import pytest
import yaml

from recmerge.data.atomic_files import MAX_LIST, atomic_token, export_recbole
from recmerge.data.building import build_clean
from recmerge.data.dataset import examples
from recmerge.data.sources import RawTables
from recmerge.data.titles import plain_line
from recmerge.data.training_set import TrainingSet
from tests.data.test_exports import KINDS, as_set, built

TYPES = {"token": str, "token_seq": str, "float": "float64", "float_seq": str}


def read_atomic(path: Path) -> pd.DataFrame:
    """Read one file: "Atomic Files" (header `name:type`, four types) and the defaults of "Data settings" (tab, space, UTF-8)."""
    with path.open(encoding="utf-8") as f:
        head = f.readline()[:-1].split("\t")
    fields = dict(field.split(":") for field in head)
    assert len(fields) == len(head)
    dtype = {field: TYPES[field.split(":")[1]] for field in head}
    frame = pd.read_csv(path, delimiter="\t", dtype=dtype, encoding="utf-8", engine="python")
    frame.columns = list(fields)
    for field, kind in fields.items():
        if kind == "token_seq":
            frame[field] = [[token for token in text.split(" ") if token] for text in frame[field].fillna("")]
    return frame


@KINDS
def test_recbole_reads_the_events_as_they_are(raw_tables: Callable[..., RawTables], tmp_path: Path, kind: str) -> None:
    training_set = built(raw_tables, kind)
    assert export_recbole(training_set, tmp_path).rows == training_set.domains["d"].events.height
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["d.inter", "d.item", "d.test.inter", "d.train.inter", "d.valid.inter", "d.yaml"]
    found = read_atomic(tmp_path / "d" / "d.inter")
    columns = ["user_id", "item_id", "timestamp", "position", "split"]
    assert list(found.columns) == columns
    assert list(found.itertuples(index=False, name=None)) == training_set.domains["d"].events.select(columns).rows()


@KINDS
def test_recbole_reads_the_titles_word_by_word(raw_tables: Callable[..., RawTables], tmp_path: Path, kind: str) -> None:
    training_set = built(raw_tables, kind)
    export_recbole(training_set, tmp_path)
    found = read_atomic(tmp_path / "d" / "d.item")
    items = training_set.domains["d"].items
    assert found["item_id"].to_list() == items["item_id"].to_list()
    wanted = [plain_line(title) for title in items["title"]]
    assert [" ".join(words) for words in found["title"]] == wanted
    assert "nan" in wanted
    assert any(title.startswith('"open') for title in wanted)


@KINDS
def test_the_questions_of_every_split_are_ours(raw_tables: Callable[..., RawTables], tmp_path: Path, kind: str) -> None:
    training_set = built(raw_tables, kind)
    export_recbole(training_set, tmp_path)
    domain = training_set.domains["d"]
    rows = training_set.rows.select("user_id", "position", "target").iter_rows()
    wanted = {"train": [(user, list(domain.sequences[user][:position]), target) for user, position, target in rows]}
    wanted |= {split: [(e.user_id, list(e.history), e.target) for e in examples(domain, split)] for split in ("valid", "test")}
    for split, questions in wanted.items():
        assert questions
        found = read_atomic(tmp_path / "d" / f"d.{split}.inter")
        assert list(found.columns) == ["user_id", "item_id_list", "item_id"]
        assert list(found.itertuples(index=False, name=None)) == questions
    settings = yaml.safe_load((tmp_path / "d" / "d.yaml").read_text())
    assert settings["benchmark_filename"] == ["train", "valid", "test"]
    assert settings["load_col"] == {"inter": ["user_id", "item_id_list", "item_id"]}
    assert settings["alias_of_item_id"] == ["item_id_list"]


def last_events(path: Path) -> dict[str, str]:
    """RecBole's leave-one-out test, ordered by `position`."""
    found = read_atomic(path).sort_values(["user_id", "position"])
    return dict(zip(found["user_id"], found["item_id"], strict=True))


def test_leave_one_out_by_position_is_ours_and_a_time_split_is_not(raw_tables: Callable[..., RawTables], tmp_path: Path) -> None:
    for kind, same in (("clean", True), ("time", False)):
        training_set = built(raw_tables, kind)
        folder = tmp_path / kind
        folder.mkdir()
        export_recbole(training_set, folder)
        ours = {e.user_id: e.target for e in examples(training_set.domains["d"], "test")}
        assert (last_events(folder / "d" / "d.inter") == ours) is same


def test_long_histories_keep_their_newest_items(raw_tables: Callable[..., RawTables], tmp_path: Path) -> None:
    raw = raw_tables([(f"u{u}", f"i{(u + t) % 80:02d}", t) for u in range(5) for t in range(60)], {f"i{i:02d}": f"T {i}" for i in range(80)})
    export_recbole(as_set(build_clean("d", raw, n_candidates=3, k=1)[0]), tmp_path)
    first = read_atomic(tmp_path / "d" / "d.test.inter").iloc[0]
    assert first["item_id_list"] == [f"i{i:02d}" for i in range(59 - MAX_LIST, 59)]
    assert first["item_id"] == "i59"


def test_ids_that_the_reader_would_not_keep_are_encoded(raw_tables: Callable[..., RawTables], tmp_path: Path) -> None:
    users = ["a b", "NA", "None", "x\ty", '"q', "100%", "%20", "é\u00a0ö", "plain"]
    items = {f"item {i}": f"T {i}" for i in range(8)}
    raw = raw_tables([(user, f"item {(u + t) % 8}", None) for u, user in enumerate(users) for t in range(5)], items)
    training_set = as_set(build_clean("d", raw, n_candidates=3, k=1)[0])
    written = export_recbole(training_set, tmp_path)
    assert written.renamed == len(users) - 1 + len(items)
    found = read_atomic(tmp_path / "d" / "d.inter")
    assert "timestamp" not in found.columns  # nobody's time is known
    events = training_set.domains["d"].events
    assert [unquote(text) for text in found["user_id"]] == events["user_id"].to_list()
    assert [unquote(text) for text in found["item_id"]] == events["item_id"].to_list()
    asked = read_atomic(tmp_path / "d" / "d.test.inter")
    assert [[unquote(i) for i in history] for history in asked["item_id_list"]] == [list(e.history) for e in examples(training_set.domains["d"], "test")]


@pytest.mark.parametrize(("text", "token"), [("B000K3", "B000K3"), ("a b", "a%20b"), ("NA", "%4EA"), ("%4EA", "%254EA"), ("é", "é"), ('"', "%22")])
def test_tokens(text: str, token: str) -> None:
    assert atomic_token(text) == token
    assert unquote(token) == text


def test_a_set_of_two_domains_has_its_own_training_rows(raw_tables: Callable[..., RawTables], tmp_path: Path) -> None:
    one, two = (built(raw_tables, "clean").domains["d"] for _ in range(2))
    rows = pl.concat([domain.rows.head(n).select(pl.lit(name).alias("domain"), pl.all()) for name, domain, n in (("one", one, 3), ("two", two, 5))])
    export_recbole(TrainingSet("one_two", {"one": one, "two": two}, rows), tmp_path)
    assert [len(read_atomic(tmp_path / name / f"{name}.train.inter")) for name in ("one", "two")] == [3, 5]


def test_a_plain_reader_of_tabs_sees_the_same_columns(raw_tables: Callable[..., RawTables], tmp_path: Path) -> None:
    """One line a record, also where a title had line breaks."""
    export_recbole(built(raw_tables, "published"), tmp_path)
    with (tmp_path / "d" / "d.item").open(encoding="utf-8", newline="") as f:
        assert len(list(csv.reader(f, delimiter="\t"))) == 25
    assert (tmp_path / "d" / "d.item").read_bytes().count(b"\n") == 25
