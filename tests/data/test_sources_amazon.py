"""Invented lines in the shapes of Amazon 2018 and 2023."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from recmerge.data.sources import SOURCES, RawTables
from recmerge.data.sources.amazon import category_path
from recmerge.errors import ArtifactError, DataError

SCRIPT = "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();"


def gz(path: Path, lines: list[Any]) -> Path:
    path.write_bytes(gzip.compress("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines).encode()))
    return path


def rejected(raw: RawTables) -> list[tuple[str, int, str]]:
    return [(r.file, r.line, r.reason) for r in raw.rejects.found]


def review18(user: str, item: str, time: Any) -> dict[str, Any]:
    return {
        "overall": 5.0, "vote": "2", "verified": True, "reviewTime": "01 1, 2018", "reviewerID": user, "asin": item,
        "style": {"Size:": " Large"}, "reviewText": "good \ud83d\ude00", "summary": "Five Stars", "unixReviewTime": time,
    }  # fmt: skip


def item18(item: str, title: Any, **more: Any) -> dict[str, Any]:
    return {"category": ["Office Products", "Paper & Pens"], "tech1": "", "description": ["<p>..."], "title": title, "brand": "Acme", "asin": item, **more}


def read18(tmp_path: Path, reviews: list[Any], items: list[Any]) -> RawTables:
    files = {"reviews": gz(tmp_path / "Office_Products_5.json.gz", reviews), "meta": gz(tmp_path / "meta_Office_Products.json.gz", items)}
    return SOURCES["amazon2018"].read(files, {})


def test_amazon2018(tmp_path: Path) -> None:
    reviews = [review18("U1", "B1", 1514764800), review18("U1", "B2", 1514678400), review18("U2", "B1", None)]
    raw = read18(tmp_path, reviews, [item18("B2", "Kid&#39;s \u00c9tui", brand=""), item18("B9", "never reviewed"), item18("B1", "A pen")])
    assert raw.interactions.rows() == [("U1", "B1", 1514764800), ("U1", "B2", 1514678400), ("U2", "B1", None)]
    category = "Office Products Paper & Pens"
    assert raw.items.rows() == [("B1", "A pen", "Acme", category), ("B2", "Kid&#39;s Étui", "", category)]
    assert (raw.rejects.found, raw.n_lines) == ([], 6)
    assert set(raw.counts.values()) == {0}


def test_amazon2018_lines_that_stand_twice_count_once(tmp_path: Path) -> None:
    again = review18("U1", "B1", 1514764800) | {"summary": "the same, edited"}
    reviews = [review18("U1", "B1", 1514764800), review18("U2", "B1", 1514764800), again, review18("U1", "B1", 1514851200)]
    raw = read18(tmp_path, reviews, [item18("B1", "Z"), item18("B1", "A"), item18("B1", None), item18("B1", SCRIPT)])
    assert raw.interactions.rows() == [("U1", "B1", 1514764800), ("U2", "B1", 1514764800), ("U1", "B1", 1514851200)]
    assert raw.items["title"].to_list() == ["A"]
    assert raw.counts == {"repeated_reviews": 1, "repeated_items": 3, "script_titles": 1, "tagged_titles": 0, "tagged_categories": 0}


@pytest.mark.parametrize(
    ("title", "kept", "counted"),
    [
        (SCRIPT, None, "script_titles"),
        ("<!doctype html><html><script>x()</script>", None, "script_titles"),
        ('<span id="productTitle">A <b>pen</b></span>', "A  pen", "tagged_titles"),
        ("Pens, <3 colours> & 2 > 1", "Pens, <3 colours> & 2 > 1", None),
        ("Function() and getTime: a book", "Function() and getTime: a book", None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_titles_that_are_a_pages_code(tmp_path: Path, title: str | None, kept: str | None, counted: str | None) -> None:
    raw = read18(tmp_path, [review18("U1", "B1", 1514764800)], [item18("B1", title)])
    found = raw.items["title"].to_list()[0]
    assert (found and found.strip()) == kept
    assert {name for name, n in raw.counts.items() if n} == ({counted} if counted else set())


def test_amazon2018_bad_lines(tmp_path: Path) -> None:
    reviews = [
        review18("U1", "B1", 1514764800),
        '{"reviewerID": "U2", "asin": "B1", "unixRev',
        "",
        review18("", "B1", 1514764800),
        review18("U2", "B1", 1514764800000),
        review18("U3", "B1", "1514764801"),
    ]
    raw = read18(tmp_path, reviews, [item18("B1", "A"), "{'asin': 'B1'}", item18("", "no id"), item18(" B1 ", "B"), "null"])
    assert [r[0] for r in raw.interactions.rows()] == ["U1", "U3"]
    assert raw.items.rows() == [("B1", "A", "Acme", "Office Products Paper & Pens")]
    reviews_file, meta_file = "Office_Products_5.json.gz", "meta_Office_Products.json.gz"
    assert sorted(rejected(raw)) == [
        (reviews_file, 2, "malformed"),
        (reviews_file, 4, "no_user"),
        (reviews_file, 5, "timestamp_not_seconds"),
        (meta_file, 2, "malformed"),
        (meta_file, 3, "no_item"),
        (meta_file, 5, "malformed"),
    ]
    assert raw.n_lines == 5 + 5


def test_categories_lose_code(tmp_path: Path) -> None:
    raw = read18(tmp_path, [review18("U1", "B1", 1514764800)], [item18("B1", "A", category=["Sports", "</span></span>", " Balls "])])
    assert raw.items["category"].to_list() == ["Sports Balls"]
    assert raw.counts["tagged_categories"] == 1


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('["A", "B & C"]', "A B & C"),
        ('[["A", "B"], ["C"]]', "A B"),
        ("[]", None),
        ("[[]]", None),
        ("", None),
        (None, None),
        ("Toys", "Toys"),
        ("12", None),
        ('[1, null, "A", ["B"]]', "A"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_category_path(text: str | None, path: str | None) -> None:
    assert category_path(text) == path


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reviews = [review18(f"U{u}", f"B{u % 3}", 1514764800 + u % 2) for u in range(8)] * 2
    items = [item18(f"B{i}", f"Title {i}") for i in range(3)]
    whole = read18(tmp_path, reviews, items)
    monkeypatch.setattr("recmerge.data.sources.files._BLOCK", 64)
    monkeypatch.setattr("recmerge.data.sources.files._READ", 16)
    parts = read18(tmp_path, reviews, items)
    assert parts.interactions.equals(whole.interactions)
    assert parts.items.equals(whole.items)
    assert parts.counts == whole.counts
    assert whole.counts["repeated_reviews"] == 8


def test_times_may_be_numbers_here_and_text_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [1514764800, "1514764801", 1514764802.5, None, True, "soon", -7, "", 1514764803, "1514764800000", False]
    reviews = [review18(f"U{i}", "B1", time) for i, time in enumerate(times)]
    raw = read18(tmp_path, reviews, [item18("B1", "A")])
    seconds = {0: 1514764800, 1: 1514764801, 2: 1514764802, 3: None, 7: None, 8: 1514764803}
    assert raw.interactions.rows() == [(f"U{i}", "B1", time) for i, time in seconds.items()]
    assert [(r.line, r.reason, r.text.split()[-1]) for r in raw.rejects.found] == [
        (5, "timestamp_not_a_number", "true"),
        (6, "timestamp_not_a_number", "soon"),
        (7, "timestamp_negative", "-7"),
        (10, "timestamp_not_seconds", "1514764800000"),
        (11, "timestamp_not_a_number", "false"),
    ]
    monkeypatch.setattr("recmerge.data.sources.files._BLOCK", 1)
    monkeypatch.setattr("recmerge.data.sources.files._READ", 64)
    monkeypatch.setattr("recmerge.data.sources.json_lines._FRAME", 1)  # a review a frame
    parts = read18(tmp_path, reviews, [item18("B1", "A")])
    assert parts.interactions.equals(raw.interactions)
    assert parts.rejects == raw.rejects


def review23(user: str, item: str, time: Any, asin: str = "B0COLOUR00") -> dict[str, Any]:
    return {
        "rating": 5.0, "title": "Such a lovely scent", "text": "...", "images": [], "asin": asin, "parent_asin": item, "user_id": user,
        "timestamp": time, "helpful_vote": 0, "verified_purchase": True,
    }  # fmt: skip


def item23(item: str, title: Any, **more: Any) -> dict[str, Any]:
    return {
        "main_category": "All Beauty", "title": title, "average_rating": 4.8, "features": [], "description": [], "price": None, "images": [],
        "store": "Howard Products", "categories": ["Beauty", "Skin Care"], "details": {"Brand": "H"}, "parent_asin": item, "bought_together": None, **more,
    }  # fmt: skip


def read23(tmp_path: Path, reviews: Path, items: list[Any]) -> RawTables:
    return SOURCES["amazon2023"].read({"reviews": reviews, "meta": gz(tmp_path / "meta_All_Beauty.jsonl.gz", items)}, {})


ITEMS23 = [item23("B1", "Soap &amp; Oil"), item23("B2", "", categories=[], store=None), item23("B3", "other")]
WANTED23 = [("B1", "Soap &amp; Oil", "Howard Products", "Beauty Skin Care"), ("B2", None, None, "All Beauty")]


def test_amazon2023_json_lines(tmp_path: Path) -> None:
    reviews = [review23("U1", "B1", 1588687728923), review23("U1", "B2", 1588687728001, asin="B1"), review23("U2", "B1", None)]
    raw = read23(tmp_path, gz(tmp_path / "All_Beauty.jsonl.gz", reviews), ITEMS23)
    assert raw.interactions.rows() == [("U1", "B1", 1588687728), ("U1", "B2", 1588687728), ("U2", "B1", None)]
    assert [(i, t or None, b, c) for i, t, b, c in raw.items.rows()] == WANTED23
    assert (raw.rejects.found, raw.n_lines) == ([], 6)


@pytest.mark.parametrize("name", ["All_Beauty.csv.gz", "All_Beauty.csv"])
def test_amazon2023_5_core_csv(tmp_path: Path, name: str) -> None:
    lines = ["user_id,parent_asin,rating,timestamp", "U1,B1,4.0,1588615855070", "U1,B2,5.0,1588615855071", "U2,B1,1.0,"]
    path = gz(tmp_path / "x.gz", lines)
    if name.endswith("csv"):
        path.write_bytes(gzip.decompress(path.read_bytes()))
    raw = read23(tmp_path, path.rename(tmp_path / name), ITEMS23)
    assert raw.interactions.rows() == [("U1", "B1", 1588615855), ("U1", "B2", 1588615855), ("U2", "B1", None)]
    assert [(i, t or None, b, c) for i, t, b, c in raw.items.rows()] == WANTED23
    assert (raw.rejects.found, raw.n_lines) == ([], 6)


def test_amazon2023_bad_lines(tmp_path: Path) -> None:
    good = review23("U1", "B1", 1588687728923)
    lines = [good, good, review23("U1", "B1", 1588687728), {**good, "parent_asin": None}, "{", review23("U3", "B1", 4102444800000)]
    raw = read23(tmp_path, gz(tmp_path / "All_Beauty.jsonl.gz", lines), ITEMS23)
    assert raw.interactions.rows() == [("U1", "B1", 1588687728)]
    assert raw.counts["repeated_reviews"] == 1
    file = "All_Beauty.jsonl.gz"
    assert sorted(rejected(raw)) == [(file, 3, "timestamp_not_milliseconds"), (file, 4, "no_item"), (file, 5, "malformed"), (file, 6, "timestamp_in_future")]
    csv = ["user_id,parent_asin,rating,timestamp", "U1,B1,4.0", "U2,B1,4.0,1588615855", ",B1,4.0,1588615855070", "U4,B1,4.0,1588615855070,9"]
    raw = read23(tmp_path, gz(tmp_path / "All_Beauty.csv.gz", csv), ITEMS23)
    assert raw.interactions.height == 0
    assert sorted(line for _, line, _ in rejected(raw)) == [2, 3, 4, 5]
    with pytest.raises(DataError, match="4 of 7 lines cannot be used"):
        raw.rejects.check(raw.n_lines, 0.1)


def test_amazon2023_csv_of_early_2024_has_no_header_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"begins with 'U1,B1,4\.0,1588615855070', expected 'user_id,parent_asin,rating,timestamp'"):
        read23(tmp_path, gz(tmp_path / "All_Beauty.csv.gz", ["U1,B1,4.0,1588615855070"]), ITEMS23)


@pytest.mark.parametrize("source", ["amazon2018", "amazon2023"])
def test_files_that_are_empty_missing_or_of_another_category(tmp_path: Path, source: str) -> None:
    reviews = {"amazon2018": [review18("U", "B1", 1514764800)], "amazon2023": [review23("U", "B1", 1588687728923)]}[source]
    full, empty = gz(tmp_path / "full.json.gz", reviews), gz(tmp_path / "empty.json.gz", [])
    other = gz(tmp_path / "other.json.gz", [item18("B9", "A") | item23("B9", "A")])
    for files, what in (((empty, other), "holds no reviews"), ((full, other), "holds no reviewed items"), ((full, empty), "holds no reviewed items")):
        with pytest.raises(DataError, match=what):
            SOURCES[source].read(dict(zip(("reviews", "meta"), files, strict=True)), {})
    with pytest.raises(ArtifactError, match="does not exist"):
        SOURCES[source].read({"reviews": full, "meta": tmp_path / "no.json.gz"}, {})


def test_reviews_of_another_release_are_named_by_their_faults(tmp_path: Path) -> None:
    raw = read23(tmp_path, gz(tmp_path / "Office.json.gz", [review18("U", "B1", 1514764800)]), ITEMS23)
    with pytest.raises(DataError, match="1 no_user"):
        raw.rejects.check(raw.n_lines, 0.001)
