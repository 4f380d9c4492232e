import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from recmerge.data.sources import SOURCES, RawTables
from recmerge.data.sources.files import blocks
from recmerge.data.sources.raw import Rejects, checked_interactions
from recmerge.errors import ArtifactError, DataError

EVENTS = ["user_id,item_id,timestamp", "u1,a,100", "u1,b,", "u2,a,300"]
ITEMS = ["item_id,title", 'a,"A, ""big"" title"', "b,"]


def write(path: Path, lines: list[str] | bytes) -> Path:
    data = lines if isinstance(lines, bytes) else ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(tmp_path: Path, events: list[str] | bytes = EVENTS, items: list[str] | bytes = ITEMS, ending: str = "csv", **columns: str | None) -> RawTables:
    files = {"interactions": write(tmp_path / f"events.{ending}", events), "items": write(tmp_path / f"items.{ending}", items)}
    return SOURCES["table"].read(files, columns)


def rows(raw: RawTables) -> list[tuple[str, str, int | None]]:
    return raw.interactions.rows()


WANTED = [("u1", "a", 100), ("u1", "b", None), ("u2", "a", 300)]


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv(tmp_path: Path, ending: str) -> None:
    raw = read(tmp_path, ending=ending)
    assert rows(raw) == WANTED
    assert raw.items.rows() == [("a", 'A, "big" title', None, None), ("b", None, None, None)]
    assert raw.n_lines == 5
    assert raw.rejects.found == []


def test_tsv_json_lines_and_parquet_read_alike(tmp_path: Path) -> None:
    tsv = read(tmp_path, [e.replace(",", "\t") for e in EVENTS], ["item_id\ttitle", "a\tA", "b\t"], ending="tsv")
    objects = [{"user_id": "u1", "item_id": "a", "timestamp": 100}, {"user_id": "u1", "item_id": "b"}, {"user_id": "u2", "item_id": "a", "timestamp": 300}]
    titled = [{"item_id": "a", "title": "A"}, {"item_id": "b", "title": None}]
    lines = read(tmp_path, [json.dumps(o) for o in objects], [json.dumps(o) for o in titled], ending="jsonl.gz")
    pl.DataFrame(objects).write_parquet(tmp_path / "events.parquet")
    pl.DataFrame(titled).write_parquet(tmp_path / "items.parquet")
    parquet = SOURCES["table"].read({"interactions": tmp_path / "events.parquet", "items": tmp_path / "items.parquet"}, {})
    assert rows(tsv) == rows(lines) == rows(parquet) == WANTED
    assert tsv.items.rows() == lines.items.rows() == parquet.items.rows() == [("a", "A", None, None), ("b", None, None, None)]


def test_parquet_times_may_be_dates(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": ["1970-01-02"]}).with_columns(pl.col("timestamp").str.to_date())
    frame.write_parquet(tmp_path / "events.parquet")
    pl.DataFrame({"item_id": [2], "title": ["B"]}).write_parquet(tmp_path / "items.parquet")
    raw = SOURCES["table"].read({"interactions": tmp_path / "events.parquet", "items": tmp_path / "items.parquet"}, {})
    assert rows(raw) == [("1", "2", 86_400)]


def test_columns_are_mapped(tmp_path: Path) -> None:
    raw = read(
        tmp_path, ["who,what,when", "u,a,7"], ["what,name,maker", "a,A,Acme"], user_id="who", item_id="what", timestamp="when", title="name", brand="maker"
    )
    assert rows(raw) == [("u", "a", 7)]
    assert raw.items.rows() == [("a", "A", "Acme", None)]


def test_a_timestamp_column_may_be_absent(tmp_path: Path) -> None:
    assert rows(read(tmp_path, ["user_id,item_id", "u,a"])) == [("u", "a", None)]
    assert rows(read(tmp_path, EVENTS, timestamp=None))[0] == ("u1", "a", None)


def test_a_missing_column_names_the_nearest_and_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'user_id' for user_id, nearest is 'userid'; it has: userid, item_id") as caught:
        read(tmp_path, ["userid,item_id", "u,a"])
    assert "columns.user_id=userid" in caught.value.fix


def test_a_missing_file_and_an_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        SOURCES["table"].read({"interactions": tmp_path / "no.csv", "items": tmp_path / "no.csv"}, {})
    with pytest.raises(DataError, match=r"'\.xlsx'"):
        read(tmp_path, ending="xlsx")


@pytest.mark.parametrize("events", [b"", b"\n\n", b"user_id,item_id,timestamp\n"])
def test_an_empty_file_is_refused(tmp_path: Path, events: bytes) -> None:
    with pytest.raises(DataError, match="holds no"):
        read(tmp_path, events)


def test_bad_utf8_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    raw = read(tmp_path, b"\xef\xbb\xbfuser_id,item_id,timestamp\nu,a,1\n", b"item_id,title\na,Caf\xe9\n")
    assert rows(raw) == [("u", "a", 1)]
    assert raw.items["title"].to_list() == ["Caf\ufffd"]


def test_lone_surrogates_in_json_become_replacement_characters(tmp_path: Path) -> None:
    items = [r'{"item_id": "a", "title": "x\ud800y \ud83d\ude00"}']
    raw = read(tmp_path, [json.dumps({"user_id": "u", "item_id": "a"})], items, ending="jsonl")
    assert raw.items["title"].to_list() == ["x\ufffdy 😀"]


def test_malformed_lines_are_put_aside_with_their_numbers(tmp_path: Path) -> None:
    lines = [*(json.dumps({"user_id": "u", "item_id": "a", "timestamp": t}) for t in range(3)), '{"user_id": "u", "ite', "[1, 2]", ""]
    lines.append(json.dumps({"user_id": "u", "item_id": "a", "timestamp": 9}))
    raw = read(tmp_path, lines, ['{"item_id": "a", "title": "A"}'], ending="jsonl")
    assert [r[2] for r in rows(raw)] == [0, 1, 2, 9]
    assert [(r.line, r.reason) for r in raw.rejects.found] == [(4, "malformed"), (5, "malformed")]
    assert raw.n_lines == 7
    with pytest.raises(DataError, match=r"2 of 7 lines cannot be used \(2 malformed\).*events\.jsonl:4"):
        raw.rejects.check(raw.n_lines, 0.2)
    raw.rejects.check(raw.n_lines, 0.3)


@pytest.mark.parametrize("header", ["user_id,item_id,timestamp", '"user_id","item_id","timestamp"'])
def test_csv_rows_cut_short_are_put_aside_with_their_numbers(tmp_path: Path, header: str) -> None:
    raw = read(tmp_path, [header, *EVENTS[1:3], "", "u9,a", *EVENTS[3:]])
    assert rows(raw) == WANTED  # the event whose time is blank stays, the one whose line ends early does not
    assert [(r.line, r.reason, r.text) for r in raw.rejects.found] == [(5, "malformed", "u9,a")]
    assert raw.n_lines == 4 + 2


def test_a_blank_line_shifts_no_number(tmp_path: Path) -> None:
    raw = read(tmp_path, [*EVENTS[:2], "", "u2,,300"])
    assert [(r.line, r.reason) for r in raw.rejects.found] == [(4, "no_item")]


def test_csv_rows_with_too_many_fields_are_put_aside(tmp_path: Path) -> None:
    raw = read(tmp_path, [*EVENTS, "u3,a,1,extra"])
    assert rows(raw) == WANTED
    assert [(r.line, r.reason) for r in raw.rejects.found] == [(5, "malformed")]


@pytest.mark.parametrize(
    ("user", "item", "stamp", "reason"),
    [
        ("", "a", "1", "no_user"),
        (None, "a", "1", "no_user"),
        ("u", "  ", "1", "no_item"),
        ("u", "a", "yesterday", "timestamp_not_a_number"),
        ("u", "a", "-5", "timestamp_negative"),
        ("u", "a", "1400000000000", "timestamp_not_seconds"),
        ("u", "a", "1600000000", "timestamp_in_future"),
    ],
)
def test_unusable_interactions(user: str | None, item: str, stamp: str, reason: str) -> None:
    schema = {"line": pl.Int64, "user_id": pl.String, "item_id": pl.String, "timestamp": pl.String}
    frame = pl.DataFrame([(2, "u", "a", "1.0"), (3, user, item, stamp)], schema=schema, orient="row")
    rejects = Rejects()
    kept = checked_interactions("f", frame, rejects, now=1_500_000_000)
    assert kept.rows() == [("u", "a", 1)]
    assert [(r.line, r.reason) for r in rejects.found] == [(3, reason)]


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [
        ("1588615855", "timestamp_not_milliseconds"),  # seconds
        ("1588615855070000", "timestamp_not_milliseconds"),  # microseconds
        ("1700000000000", "timestamp_in_future"),
        ("-1", "timestamp_negative"),
        ("2020-05-04", "timestamp_not_a_number"),
    ],
)
def test_times_in_milliseconds(stamp: str, reason: str) -> None:
    schema = {"line": pl.Int64, "user_id": pl.String, "item_id": pl.String, "timestamp": pl.String}
    lines = [(2, "u", "a", "1588615855999"), (3, "u", "b", None), (4, "u", "c", stamp)]
    rejects = Rejects()
    kept = checked_interactions("f", pl.DataFrame(lines, schema=schema, orient="row"), rejects, now=1_600_000_000, milliseconds=True)
    assert kept.rows() == [("u", "a", 1588615855), ("u", "b", None)]
    assert [(r.line, r.reason) for r in rejects.found] == [(4, reason)]


def test_an_item_that_stands_twice_is_read_alike_in_either_order(tmp_path: Path) -> None:
    one = read(tmp_path, EVENTS, ["item_id,title", "a,Second", "b,B", "a,", "a,First"])
    two = read(tmp_path, EVENTS, ["item_id,title", "a,First", "a,", "b,B", "a,Second"])
    assert one.items.rows() == two.items.rows() == [("a", "First", None, None), ("b", "B", None, None)]
    assert one.counts == two.counts == {"repeated_items": 2}


def test_a_truncated_gzip_names_the_file_and_the_byte(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(f"u{i},a,{i * i}" for i in range(5000)).encode())
    path = tmp_path / "events.csv.gz"
    path.write_bytes(whole[:-200])
    with pytest.raises(DataError, match=rf"events\.csv\.gz is cut short.*byte {len(whole) - 200}"):
        list(blocks(path))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match="damaged near byte"):
        list(blocks(path))


def test_a_gzip_bomb_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"\n" * (100 << 20), compresslevel=9))
    with pytest.raises(DataError, match="swells to more than 200 times"):
        list(blocks(path))


def test_blocks_are_whole_lines_and_know_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmerge.data.sources.files._BLOCK", 10)
    monkeypatch.setattr("recmerge.data.sources.files._READ", 4)
    path = write(tmp_path / "lines.txt", ["aaa", "bbb", "cccccccccccccccc", "d", "eeee", "fff", "g"])
    found = list(blocks(path))
    assert b"".join(data for _, data in found) == path.read_bytes()
    assert all(data.endswith(b"\n") for _, data in found)
    assert len(found) > 1
    assert [n for n, _ in found] == [1 + path.read_bytes()[: sum(len(d) for _, d in found[:i])].count(b"\n") for i in range(len(found))]


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "two.gz"
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert b"".join(data for _, data in blocks(path)) == b"a\nb\n"


def amazon(tmp_path: Path, meta: list[str]) -> RawTables:
    reviews = [{"reviewerID": "U", "asin": a, "overall": 5.0, "reviewText": "\ud83d\ude00 good", "unixReviewTime": t} for a, t in (("B1", 20), ("B2", 10))]
    files = {
        "reviews": write(tmp_path / "reviews_X_5.json.gz", [json.dumps(r) for r in reviews]),
        "meta": write(tmp_path / "meta_X.json.gz", meta),
    }
    return SOURCES["amazon2014"].read(files, {})


def test_amazon2014(tmp_path: Path) -> None:
    raw = amazon(
        tmp_path,
        [
            "{'asin': 'B1', 'title': \"Kid's &amp; Toy\", 'brand': 'Acme', 'categories': [['Toys & Games', 'Puzzles'], ['Other']]}",
            "{'asin': 'B9', 'title': 'never reviewed'}",
            "{'salesRank': {'Toys': 3}, 'asin': 'B2'}",
        ],
    )
    assert rows(raw) == [("U", "B1", 20), ("U", "B2", 10)]
    assert raw.items.rows() == [("B1", "Kid's &amp; Toy", "Acme", "Toys & Games Puzzles"), ("B2", None, None, None)]
    assert raw.rejects.found == []


def test_amazon2014_runs_nothing_that_a_line_says(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    raw = amazon(tmp_path, ["{'asin': 'B1', 'title': 'A'}", f"{{'asin': 'B2', 'title': open({str(mark)!r}, 'w')}}"])
    assert not mark.exists()
    assert [(r.line, r.reason) for r in raw.rejects.found] == [(2, "malformed")]


def test_amazon2014_items_in_odd_shapes(tmp_path: Path) -> None:
    raw = amazon(tmp_path, ["{'asin': 'B1', 'title': 'A', 'categories': 'Toys'}", "{'asin': 'B2', 'title': 'B', 'categories': [[]]}", "{'title': 'nameless'}"])
    assert raw.items.rows() == [("B1", "A", None, "Toys"), ("B2", "B", None, None)]
    assert [(r.line, r.reason) for r in raw.rejects.found] == [(3, "no_item")]


def test_where_no_review_can_be_used_the_reviews_are_named(tmp_path: Path) -> None:
    reviews = write(tmp_path / "reviews_X_5.json.gz", [json.dumps({"reviewerID": "U", "asin": "B1", "unixReviewTime": "soon"})])
    raw = SOURCES["amazon2014"].read({"reviews": reviews, "meta": write(tmp_path / "meta_X.json.gz", ["{'asin': 'B1', 'title': 'A'}"])}, {})
    with pytest.raises(DataError, match=r"1 timestamp_not_a_number.*reviews_X_5"):
        raw.rejects.check(raw.n_lines, 0.001)


def test_the_official_raw_files(shared: Path, tmp_path: Path) -> None:
    reviews = shared / "data" / "raw" / "reviews_Musical_Instruments_5.json.gz"
    meta = write(tmp_path / "meta.json.gz", ["{'asin': '1384719342', 'title': 'Pop Filter'}"])
    raw = SOURCES["amazon2014"].read({"reviews": reviews, "meta": meta}, {})
    assert raw.interactions.height == 10_261
    assert raw.interactions.row(0) == ("A2IBPI20UZIR0U", "1384719342", 1393545600)
    assert raw.rejects.found == []
