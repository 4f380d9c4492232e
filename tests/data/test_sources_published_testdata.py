"""Questions out of chat messages: lists cut as they were joined, and whatever does not fit put aside with its reason."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from recmerge.data.building import build_asked
from recmerge.data.dataset import examples
from recmerge.data.prompts import PUBLISHED_WORDING, Wording, render_published
from recmerge.data.sources import SOURCES, RawTables
from recmerge.errors import ArtifactError, DataError

BEFORE, BETWEEN, AFTER = "One customer bought, in this order:[", "]. Choose five to come next.Candidates: [", "]. The five are:"


def line(history: Sequence[str], candidates: Sequence[str], answer: Sequence[str]) -> dict[str, Any]:
    """One line, worded as a program would: lists between fixed words, no line breaks."""
    user = f"{BEFORE}{'||'.join(history)}{BETWEEN}{'||'.join(candidates)}{AFTER}"
    return chat(user, "||".join(answer))


def chat(user: str, assistant: str) -> dict[str, Any]:
    turns = (("system", "You help."), ("user", user), ("assistant", assistant))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


GOOD = [line(["h1", "h2"], ["a", "b", "c"], ["b", "c"]), line(["h3"], ["c", "d", "a"], ["a", "c"]), line(["h1"], ["d", "b", "a"], ["d", "a"])]


def read(tmp_path: Path, *rows: dict[str, Any] | str, name: str = "sports.jsonl") -> RawTables:
    data = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return SOURCES["published_testdata"].read({"testdata": path}, {})


def asked(raw: RawTables) -> list[tuple[str, list[str], str, list[str]]]:
    """(user, history, target, candidates) of every question, through a built domain."""
    domain, _ = build_asked("d", raw)
    return [
        (e.user_id, [domain.titles[i] for i in e.history], domain.titles[e.target], [domain.titles[i] for i in e.candidates]) for e in examples(domain, "test")
    ]


@pytest.mark.parametrize("name", ["sports.jsonl", "sports.jsonl.gz"])
def test_questions(tmp_path: Path, name: str) -> None:
    raw = read(tmp_path, *GOOD, name=name)
    assert asked(raw) == [("1", ["h1", "h2"], "b", ["a", "b", "c"]), ("2", ["h3"], "a", ["c", "d", "a"]), ("3", ["h1"], "d", ["d", "b", "a"])]
    assert raw.items["title"].to_list() == ["a", "b", "c", "d", "h1", "h2", "h3"]
    assert (raw.n_lines, raw.rejects.found) == (3, [])
    assert raw.asked is not None
    assert raw.asked.wording == Wording("You help.", BEFORE, BETWEEN, AFTER)


def test_recmerges_own_wording_is_read_as_well(tmp_path: Path) -> None:
    row = chat(render_published(["h1", "h2"], ["a", "b", "c"]).user, "c||a")
    row["messages"][0]["content"] = PUBLISHED_WORDING.system
    raw = read(tmp_path, row)
    assert asked(raw) == [("1", ["h1", "h2"], "c", ["a", "b", "c"])]
    assert raw.asked is not None
    assert raw.asked.wording == PUBLISHED_WORDING


def test_a_prompt_in_the_files_own_words_is_the_files_prompt(tmp_path: Path) -> None:
    raw = read(tmp_path, *GOOD)
    assert raw.asked is not None
    prompts = [render_published(history, candidates, raw.asked.wording) for _, history, _, candidates in asked(raw)]
    assert [(p.system, p.user) for p in prompts] == [tuple(turn["content"] for turn in row["messages"][:2]) for row in GOOD]


def test_users_are_lines_and_sort_as_numbers(tmp_path: Path) -> None:
    raw = read(tmp_path, "", *GOOD * 3, "", GOOD[0])
    assert [user for user, *_ in asked(raw)] == ["02", "03", "04", "05", "06", "07", "08", "09", "10", "12"]
    assert raw.n_lines == 10


def test_a_domain_of_questions_alone(tmp_path: Path) -> None:
    domain, facts = build_asked("d", read(tmp_path, *GOOD))
    assert domain.profile == "published"
    assert domain.rows.is_empty()
    assert examples(domain, "valid") == []
    assert domain.events.select("user_id", "item_id", "position", "split").rows()[:3] == [
        ("1", "h1", 0, "train"),
        ("1", "h2", 1, "valid"),
        ("1", "b", 2, "test"),
    ]
    assert domain.events["timestamp"].null_count() == domain.events.height
    assert facts["split"] == {"kind": "asked"}
    assert facts["counts"] | {"users": 3, "items": 7, "events": 7, "rows": 0} == facts["counts"]
    assert facts["wording"]["system"] == "You help."


# --- titles that hold what separates them --------------------------------------------------------


@pytest.mark.parametrize(
    "title",
    [
        "Mat [blue]",
        "[new] Mat",
        "Mat]",
        "]. Mat [",
        "Mat, see Candidates: [red]",
        "tab\there",
        "line\nbreak",
        '"quoted"',
        "{history}",
        "<|im_end|>\n<|im_start|>assistant",
        "x" * 20_000,
        "Café 雨 🎾",
        " spaces ",
        "&amp;",
        "nan",
        "line\u2028separator",
        "back\\slash",
        "one | two",
    ],
)
def test_hostile_titles_stay_whole(tmp_path: Path, title: str) -> None:
    """First, last and between others, in either list, and as the target."""
    rows = [
        *GOOD * 2,
        line([title, "h1"], ["a", "b", title], [title, "b"]),
        line(["h1", title], [title, "b", "c"], ["c", title]),
        line(["h1", title, "h2"], ["a", title, "b"], [title, "a"]),
    ]
    found = asked(read(tmp_path, *rows))[-3:]
    assert [(history, target, candidates) for _, history, target, candidates in found] == [
        ([title, "h1"], title, ["a", "b", title]),
        (["h1", title], "c", [title, "b", "c"]),
        (["h1", title, "h2"], title, ["a", title, "b"]),
    ]


@pytest.mark.parametrize("title", ["left||right", "left||middle||right", "||right", "left||"])
def test_a_title_may_hold_the_separator(tmp_path: Path, title: str) -> None:
    rows = [*GOOD * 2, line(["h1", title, "h2"], ["a", title, "b"], [title, "a"]), line([title], [title, "c", "d"], ["d", title])]
    raw = read(tmp_path, *rows)
    assert raw.rejects.found == []
    assert raw.counts["titles_with_separator"] == 1
    assert [q[1:] for q in asked(raw)[-2:]] == [(["h1", title, "h2"], title, ["a", title, "b"]), ([title], "d", [title, "c", "d"])]


def test_a_list_that_can_be_cut_in_two_ways_is_put_aside(tmp_path: Path) -> None:
    raw = read(tmp_path, *GOOD, line(["h1"], ["a", "b||c", "d"], ["d"]))  # a, b, c and d are titles of whole lists
    assert [(r.line, r.reason) for r in raw.rejects.found] == [(4, "not_3_candidates")]


def test_the_target_is_the_longest_title_that_the_answer_begins_with(tmp_path: Path) -> None:
    rows = [*GOOD, line(["h1"], ["x||y", "a", "x||y||z"], ["x||y||z", "a"]), line(["h1"], ["x||y||z", "a", "x||y"], ["x||y", "a"])]
    assert [q[2] for q in asked(read(tmp_path, *rows))[-2:]] == ["x||y||z", "x||y"]
    begins_alike = read(tmp_path, *GOOD, line(["h1"], ["Mat", "Mat, blue", "a"], ["Mat, blue", "Mat"]))
    assert asked(begins_alike)[-1][2] == "Mat, blue"


def test_equal_titles_are_counted_and_stay(tmp_path: Path) -> None:
    raw = read(tmp_path, *GOOD, line(["h1"], ["a", "b", "a"], ["a", "b"]), line(["a"], ["a", "b", "c"], ["a"]))
    assert raw.counts["lists_with_equal_titles"] == 1
    assert [q[2:] for q in asked(raw)[-2:]] == [("a", ["a", "b", "a"]), ("a", ["a", "b", "c"])]


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    row = json.dumps(line(["h1"], ["a", "b", "MARK"], ["MARK", "a"])).replace("MARK", "x\\ud83d")
    assert asked(read(tmp_path, *GOOD, row))[-1][2] == "x\ufffd"


# --- lines that cannot be used -------------------------------------------------------------------

USER = GOOD[0]["messages"][1]["content"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"messages": [', "malformed"),
        ("<html>", "malformed"),
        ('["messages"]', "malformed"),
        ({"text": "a"}, "not_one_question"),
        ({"messages": "a"}, "not_one_question"),
        ({"messages": []}, "not_one_question"),
        ({"messages": ["a", "b", "c"]}, "not_one_question"),
        ({"messages": GOOD[0]["messages"][:2]}, "not_one_question"),
        ({"messages": [*GOOD[0]["messages"], {"role": "user", "content": "and?"}]}, "not_one_question"),
        ({"messages": [*GOOD[0]["messages"][:2], {"role": "assistant", "content": None}]}, "not_one_question"),
        (chat("What next?", "a"), "other_words"),
        (chat(USER.replace("Choose", "Take"), "a"), "other_words"),
        (chat(USER + " Thanks.", "a"), "other_words"),
        (chat(USER + USER, "a"), "other_words"),
        (line([], ["a", "b", "c"], ["a"]), "no_history"),
        (line(["h1"], ["a", "b"], ["a"]), "not_3_candidates"),
        (line(["h1"], ["a", "b", "c", "d"], ["a"]), "not_3_candidates"),
        (line(["h1"], [], ["a"]), "not_3_candidates"),
        (line(["h1"], ["a", "b", "c"], ["d", "a"]), "target_not_listed"),
        (line(["h1"], ["a", "b", "c"], ["A"]), "target_not_listed"),
        (line(["h1"], ["a", "b", "c"], [" a"]), "target_not_listed"),
        (line(["h1"], ["a", "b", "c"], []), "target_not_listed"),
    ],
)
def test_a_bad_line_is_put_aside_and_shifts_nothing(tmp_path: Path, bad: dict[str, Any] | str, reason: str) -> None:
    raw = read(tmp_path, GOOD[0], bad, *GOOD[1:], GOOD[0])
    assert [(r.file, r.line, r.reason) for r in raw.rejects.found] == [("sports.jsonl", 2, reason)]
    assert raw.n_lines == 5
    assert [q[0] for q in asked(raw)] == ["1", "3", "4", "5"]
    assert [q[2] for q in asked(raw)] == ["b", "a", "d", "b"]


def test_rejects_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    raw = read(tmp_path, line(["h1"], ["a", "b", "c"], ["x"]), "{", *GOOD, line(["h1"], ["a"], ["a"]), "}")
    assert [r.line for r in raw.rejects.found] == [1, 2, 6, 7]


# --- files that are something else ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], "holds no chat messages in any of its 0 lines"),
        (["<html>", "</html>"], "holds no chat messages in any of its 2 lines"),
        ([{"user_id": "u"}], "holds no chat messages"),
        ([chat("Hello", "Hi")], "shows no history in brackets"),
        ([chat("Candidates: [a||b]", "a")], "shows no history in brackets"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, rows: list[dict[str, Any] | str], what: str) -> None:
    with pytest.raises(DataError, match=what):
        read(tmp_path, *rows)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none.jsonl does not exist"):
        SOURCES["published_testdata"].read({"testdata": tmp_path / "none.jsonl"}, {})


def test_no_question_left_is_refused(tmp_path: Path) -> None:
    raw = read(tmp_path, line(["h"], ["a", "b"], ["c"]))
    with pytest.raises(DataError, match="none of 1 lines is a question"):
        build_asked("d", raw)
