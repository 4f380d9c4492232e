"""The quick and the careful reader of JSON lines agree on every line, and a bad line costs its neighbours little."""

import gzip
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recmerge.data.sources import json_lines
from recmerge.data.sources.json_lines import Needed, json_frames, parse_lines, read_json_lines
from recmerge.data.sources.raw import Rejects

FIELDS = ["reviewerID", "asin", "unixReviewTime"]
Row = tuple[str | None, ...]
Outcome = tuple[list[tuple[int, Row]], list[tuple[int, str, str]], int]


def review(user: Any = "A1", item: Any = "B1", time: Any = 1393545600, text: str = 'Works, "as said" \\ well') -> dict[str, Any]:
    return {"reviewerID": user, "asin": item, "helpful": [0, 0], "reviewText": text, "overall": 5.0, "unixReviewTime": time}


GOOD = json.dumps(review()).encode()


def line(**changes: bytes) -> bytes:
    """Return a real-shaped line with some values written as given."""
    values = {"reviewerID": b'"A1"', "asin": b'"B1"', "reviewText": b'"x"', "unixReviewTime": b"1", **changes}
    return b"{" + b", ".join(b'"' + key.encode() + b'": ' + value for key, value in values.items()) + b"}"


MALFORMED = "malformed"
CASES: dict[str, tuple[bytes, Row | str | None]] = {
    "whole": (GOOD, ("A1", "B1", "1393545600")),
    "carriage return": (GOOD + b"\r", ("A1", "B1", "1393545600")),
    "spaces around": (b"  " + GOOD + b" \t", ("A1", "B1", "1393545600")),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, ("A1", "B1", "1393545600")),
    "no-break space": (GOOD + b"\xc2\xa0", ("A1", "B1", "1393545600")),
    "cut": (GOOD[:70], MALFORMED),
    "cut behind a bracket": (b'{"helpful": {"n": 1}', MALFORMED),
    "two on one line": (GOOD + GOOD, MALFORMED),
    "comma behind": (GOOD + b",", MALFORMED),
    "quote missing": (GOOD.replace(b'", "asin"', b', "asin"'), MALFORMED),
    "colon missing": (GOOD.replace(b'"asin":', b'"asin"'), MALFORMED),
    "comma too many": (GOOD.replace(b"}", b",}"), MALFORMED),
    "bare NUL": (line(reviewText=b'"x\x00y"'), MALFORMED),
    "NUL behind": (GOOD + b"\x00", MALFORMED),
    "bare tab": (line(reviewText=b'"x\ty"'), MALFORMED),
    "unknown escape": (line(reviewText=b'"\\x41"'), MALFORMED),
    "Python literal": (b"{'reviewerID': 'A1', 'asin': 'B1'}", MALFORMED),
    "list": (b"[1, 2]", MALFORMED),
    "null": (b"null", MALFORMED),
    "text": (b"not json", MALFORMED),
    "junk in brackets": (b"{junk}", MALFORMED),
    "number with zero": (line(unixReviewTime=b"01"), MALFORMED),
    "number with plus": (line(unixReviewTime=b"+1"), MALFORMED),
    "deep": (line(reviewText=b"[" * 5000 + b"]" * 5000), MALFORMED),
    "blank": (b"", None),
    "spaces": (b" \t ", None),
    "only a carriage return": (b"\r", None),
    "empty object": (b"{}", (None, None, None)),
    "user missing": (GOOD.replace(b"reviewerID", b"reviewer"), (None, "B1", "1393545600")),
    "null user": (line(reviewerID=b"null"), (None, "B1", "1")),
    "NaN is unknown": (line(unixReviewTime=b"NaN"), ("A1", "B1", None)),
    "infinite": (line(unixReviewTime=b"-Infinity"), ("A1", "B1", "-inf")),
    "bad UTF-8 in a value": (line(asin=b'"B\xff1"'), ("A1", "B\ufffd1", "1")),
    "bad UTF-8 elsewhere": (line(reviewText=b'"caf\xe9"'), ("A1", "B1", "1")),
    "key stands twice": (line()[:-1] + b', "asin": "B2"}', ("A1", "B2", "1")),
    "key stands twice, null last": (b'{"asin": "B2", "asin": null}', (None, None, None)),
    "key in a nested object": (b'{"x": {"asin": "B2"}, "asin": "B1"}', (None, "B1", None)),
    "key with an escape": (b'{"\\u0061sin": "B1"}', (None, "B1", None)),
    "NUL as an escape": (line(asin=b'"B\\u00001"'), ("A1", "B\x001", "1")),
    "emoji": (line(asin=b'"\\ud83d\\ude00"'), ("A1", "😀", "1")),
    "half an emoji": (line(asin=b'"B\\ud83d1"'), ("A1", "B\ufffd1", "1")),
    "the other half": (line(asin=b'"B\\ude001"'), ("A1", "B\ufffd1", "1")),
    "half an emoji before a private character": (line(asin=b'"\\ud83d\\ue000"'), ("A1", "\ufffd\ue000", "1")),
    "half an emoji elsewhere": (line(reviewText=b'"\\ud83d"'), ("A1", "B1", "1")),
    "whole float": (line(unixReviewTime=b"1393545600.0"), ("A1", "B1", "1393545600")),
    "fraction": (line(unixReviewTime=b"1393545600.25"), ("A1", "B1", "1393545600.25")),
    "exponent": (line(unixReviewTime=b"1.5e3"), ("A1", "B1", "1500")),
    "large exponent": (line(unixReviewTime=b"1e20"), ("A1", "B1", "100000000000000000000")),
    "small exponent": (line(unixReviewTime=b"1e-8"), ("A1", "B1", "0.00000001")),
    "beyond floats": (line(unixReviewTime=b"1e400"), ("A1", "B1", "inf")),
    "below zero": (line(unixReviewTime=b"-0.0"), ("A1", "B1", "-0")),
    "many digits": (line(reviewerID=b"9" * 50), ("9" * 50, "B1", "1")),
    "number as text": (line(unixReviewTime=b'"1393545600.0"'), ("A1", "B1", "1393545600.0")),
    "true": (line(reviewerID=b"true"), ("true", "B1", "1")),
    "list as a value": (line(asin=b'["a \\"b\\"", 1.0, null, "\\u00e9"]'), ("A1", '["a \\"b\\"", 1.0, null, "é"]', "1")),
    "object as a value": (line(asin=b'{"k": true}'), ("A1", '{"k": true}', "1")),
    "text that looks like a list": (line(asin=b'"[x"'), ("A1", "[x", "1")),
}


def outcome(frame: pl.DataFrame, rejects: Rejects, n: int) -> Outcome:
    return [(row[0], row[1:]) for row in frame.rows()], [(r.line, r.reason, r.text) for r in rejects.found], n


def quickly(path: Path, fields: list[str] = FIELDS) -> Outcome:
    rejects = Rejects()
    return outcome(*_second(read_json_lines(path, fields, rejects), rejects))


def _second(read: tuple[pl.DataFrame, int], rejects: Rejects) -> tuple[pl.DataFrame, Rejects, int]:
    return read[0], rejects, read[1]


def carefully(path: Path, fields: list[str] = FIELDS) -> Outcome:
    """Read every line on its own."""
    rejects, lines = Rejects(), path.read_bytes().split(b"\n")
    frame = parse_lines(path.name, enumerate(lines, 1), fields, rejects, json_lines._json_object)
    return outcome(frame, rejects, sum(1 for raw in lines if raw.strip()))


def write(folder: Path, lines: Iterable[bytes]) -> Path:
    path = folder / "reviews.json"
    path.write_bytes(b"".join(raw + b"\n" for raw in lines))
    return path


@pytest.mark.parametrize("name", CASES)
def test_a_line_gives_the_same_alone_and_among_others(tmp_path: Path, name: str) -> None:
    raw, wanted = CASES[name]
    for n_before, n_after in ((0, 0), (1, 0), (400, 300)):
        path = write(tmp_path, [GOOD] * n_before + [raw] + [GOOD] * n_after)
        rows, rejects, n = quickly(path)
        assert (rows, rejects, n) == carefully(path)
        here = n_before + 1
        assert [row for at, row in rows if at == here] == ([wanted] if isinstance(wanted, tuple) else [])
        assert [(at, reason) for at, reason, _ in rejects] == ([(here, MALFORMED)] if wanted == MALFORMED else [])
        assert n == n_before + n_after + (wanted is not None)
        assert [at for at, _ in rows if at != here] == [*range(1, here), *range(here + 1, here + 1 + n_after)]


def test_all_of_them_in_one_file_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raws = [raw for raw, _ in CASES.values()]
    random.Random(0).shuffle(raws)
    path = write(tmp_path, [raw for bad in raws for raw in (bad, GOOD)])
    wanted = carefully(path)
    assert quickly(path) == wanted
    for block, frame in ((64, 1), (4096, 300), (1 << 20, 1 << 10)):
        monkeypatch.setattr(json_lines, "_FRAME", frame)
        monkeypatch.setattr("recmerge.data.sources.files._BLOCK", block)
        monkeypatch.setattr("recmerge.data.sources.files._READ", 50)
        assert quickly(path) == wanted


FRAGMENTS = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\x00", b"\r", b"\t", b" ", b"\xff", b"\xef\xbb\xbf", b"\\ud83d", b"\\ude00", b"\\u0000", b"1e5", b"5.0",
    b"-0", b"true", b"null", b"NaN", b"0", b"\xc2\xa0", b"\x0b", b"\x1c", "😀".encode(), b'"asin": ', b"\\u0022", b"/", b".", b"-",
]  # fmt: skip
VALUES = st.sampled_from(["A1", "B\U0001f600", "", " x ", None, 5, 5.0, 1.5, True, ["a", 'q"r'], {"k": 1.0}, "1393545600", 1393545600, -1, 1e20, "[x"])
REVIEWS = st.builds(review, VALUES, VALUES, VALUES, st.sampled_from(["fine", '"quoted" \\ \n', "é\U0001f600", ""]))


@st.composite
def damaged_lines(draw: st.DrawFn) -> bytes:
    """Draw a review's line, whole or damaged at one to three places."""
    value = draw(REVIEWS)
    for key in draw(st.sets(st.sampled_from(sorted(value)), max_size=2)):
        del value[key]
    raw = json.dumps(value, ensure_ascii=draw(st.booleans())).encode()
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(raw)))
        way = draw(st.sampled_from(["insert", "drop", "cut", "byte", "twice"]))
        if way == "insert":
            raw = raw[:place] + draw(st.sampled_from(FRAGMENTS)) + raw[place:]
        elif way == "drop":
            raw = raw[:place] + raw[place + draw(st.integers(1, 5)) :]
        elif way == "cut":
            raw = raw[:place]
        elif way == "byte":
            raw = raw[:place] + draw(st.binary(min_size=1, max_size=1)) + raw[place + 1 :]
        else:
            raw = raw[:-1] + b', "asin": "again"}'
    return raw.replace(b"\n", b"")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(damaged_lines(), min_size=1, max_size=12), st.sampled_from([1, 200, 500, 1 << 18]))
def test_both_readers_agree_on_damaged_lines(tmp_path: Path, raws: list[bytes], block: int) -> None:
    path = write(tmp_path, raws)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recmerge.data.sources.files._BLOCK", block)
        assert quickly(path) == carefully(path)


def test_both_readers_agree_on_the_official_lines_damaged(shared: Path, tmp_path: Path) -> None:
    raws = gzip.decompress((shared / "data/raw/reviews_Musical_Instruments_5.json.gz").read_bytes()).splitlines()
    draw = random.Random(0)
    for place in draw.sample(range(len(raws)), 200):
        raw = raws[place]
        at = draw.randrange(len(raw))
        raws[place] = draw.choice([raw[:at], raw[:at] + draw.choice(FRAGMENTS) + raw[at:], raw[:at] + raw[at + 1 :], raw.replace(b": ", b":", 1), b""])
    path = write(tmp_path, raws)
    rows, rejects, n = quickly(path)
    assert (rows, rejects, n) == carefully(path)
    assert n == len(rows) + len(rejects)
    assert 50 < len(rejects) < 200


@pytest.mark.parametrize("bad", [GOOD[:50], b"[1, 2]", GOOD.replace(b'"asin":', b'"asin"'), GOOD + GOOD, b""])
def test_a_bad_line_costs_its_neighbours_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: bytes) -> None:
    raws = [GOOD] * 20_000
    places = (0, 17, 18, 9_000, 19_999)
    for place in places:
        raws[place] = bad
    path, alone = write(tmp_path, raws), list[tuple[int, bytes]]()
    real = json_lines._Reader._with_care

    def noted(reader: Any, number: int, line: bytes) -> Any:
        alone.append((number - 1, line))
        return real(reader, number, line)

    monkeypatch.setattr(json_lines._Reader, "_with_care", noted)
    rows, rejects, n = quickly(path)
    assert alone == [(place, bad + b"\n") for place in places]
    assert [at - 1 for at, _, _ in rejects] == (list(places) if bad else [])
    assert [at for at, _ in rows] == [i + 1 for i in range(20_000) if i not in places]
    assert n == (20_000 if bad else 19_995)


SPANS = {  # as many objects as lines, or as many line ends between brackets
    "an object goes on and two share a line": ([b'{"asin": "B1"', b"}{}"], [1, 2], []),
    "two share a line and an object goes on": ([b'{"asin": "B1"}{', b"}"], [1, 2], []),
    "brackets at the line ends": ([b'{"x": [{}', b"{}]}"], [1, 2], []),
    "an object over three lines": ([b"{", b'"asin": "B1"', b"}"], [1, 2, 3], []),
    "two on the line before a blank one": ([b"{}{}", b""], [1], []),
    "two on a line, then half a one": ([GOOD + GOOD, GOOD[:-1], b"}"], [1, 2, 3], []),
    "two with a carriage return between": ([b"{}\r{}\r", b"\r"], [1], []),
    "carriage returns at the line ends": ([b"{}\r", b"{\r", b"{}\r"], [2], [1, 3]),
    "blanks around": ([b"{} ", b" {}", b"\t", b"{}\t\r"], [], [1, 2, 4]),
}


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("n_around", [0, 3])
def test_an_object_ends_with_its_line(tmp_path: Path, name: str, n_around: int) -> None:
    raws, bad, good = SPANS[name]
    around = [GOOD] * n_around
    path = write(tmp_path, [*around, *raws, *around])
    rows, rejects, n = quickly(path)
    assert (rows, rejects, n) == carefully(path)
    behind = range(n_around + len(raws) + 1, 2 * n_around + len(raws) + 1)
    assert [at for at, _ in rows] == [*range(1, n_around + 1), *(at + n_around for at in good), *behind]
    assert [(at, reason) for at, reason, _ in rejects] == [(at + n_around, MALFORMED) for at in bad]


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([b"5", b"-3", b"null"], [5, -3, None]),
        ([b"1", b"0"], [1, 0]),
        ([b"1", b"true"], ["1", "true"]),
        ([b"false", b"7"], ["false", "7"]),
        ([b"1", b"2.0"], ["1", "2"]),
        ([b"1", b'"2"'], ["1", "2"]),
        ([b'"1"', b"2"], ["1", "2"]),
        ([b"1", b"9" * 20], ["1", "9" * 20]),
        ([b"1", b"[2]"], ["1", "[2]"]),
        ([b"null", b"null"], [None, None]),
    ],
)
def test_whole_numbers_may_stay(tmp_path: Path, values: list[bytes], kept: list[Any]) -> None:
    path = write(tmp_path, [line(unixReviewTime=value) for value in values])
    ((frame, _),) = json_frames(path, FIELDS, Rejects(), whole="unixReviewTime")
    assert frame["unixReviewTime"].to_list() == kept
    ((text, _),) = json_frames(path, FIELDS, Rejects())
    assert text.drop("line").dtypes == [pl.String] * 3
    assert text["unixReviewTime"].to_list() == [None if value is None else str(value) for value in kept]


def test_a_file_of_bad_lines_only(tmp_path: Path) -> None:
    path = write(tmp_path, [GOOD[:30] + str(i).encode() for i in range(1000)])
    rows, rejects, n = quickly(path)
    assert (rows, n) == ([], 1000)
    assert [at for at, _, _ in rejects] == list(range(1, 1001))
    assert quickly(write(tmp_path, [])) == ([], [], 0)
    assert quickly(write(tmp_path, [b"", b" "])) == ([], [], 0)


def test_what_is_not_needed_is_not_kept_nor_looked_at(tmp_path: Path) -> None:
    raws = [json.dumps(review(item=item)).encode() for item in ("B1", " B2 ", "B3", "", None, "B\ud83d")]
    raws += [line(asin=b'"B1"', reviewerID=b'["a"]'), line(asin=b'"B3"', reviewerID=b'["a"]'), GOOD[:40]]
    rejects, parts = Rejects(), []
    for frame, n in json_frames(write(tmp_path, raws), FIELDS, rejects, Needed("asin", pl.Series(["B1", "B2", "B\ufffd"]))):
        parts.append(frame)
        assert n == 9
    assert [(row[0], row[2]) for row in pl.concat(parts).rows()] == [(1, "B1"), (2, " B2 "), (4, ""), (5, None), (6, "B\ufffd"), (7, "B1")]
    assert [r.line for r in rejects.found] == [9]
