import json
from pathlib import Path
from typing import Any

import pytest

from recmerge.errors import ArtifactError, DataError
from recmerge.evaluation.published import read_published

PROMPT = "History: [x||y]. Pick the top 5. Candidates: [A||B||C]. The answer:"


def files(folder: Path, results: list[str], tests: list[Any]) -> tuple[Path, Path]:
    result, test = folder / "result.jsonl", folder / "test.jsonl"
    result.write_text("".join(line + "\n" for line in results), encoding="utf-8")
    test.write_text("".join((t if isinstance(t, str) else json.dumps(t)) + "\n" for t in tests), encoding="utf-8")
    return result, test


def test_ranks_as_published(tmp_path: Path) -> None:
    tests = [{"input": PROMPT, "output": "A||B||C"}] * 5
    results = [json.dumps(text) for text in ("A||B", " B||A ", "B||C", "B|| A", "a")]
    found = read_published(*files(tmp_path, results, tests))
    # First; second; not named; ' A' is not 'A'; 'a' is not 'A'.
    assert found.ranks.n_better.tolist() == [0, 1, float("inf"), float("inf"), float("inf")]
    assert found.ranks.n_candidates.tolist() == [3] * 5
    assert found.off_list == 2
    assert found.malformed == 0


def test_a_broken_line_is_a_miss_and_shifts_nothing(tmp_path: Path) -> None:
    tests = [{"output": title} for title in "ABCDE"]
    results = ['"A"', '"B', "", '["C"]', '"E"']
    found = read_published(*files(tmp_path, results, tests))
    assert found.malformed == 3
    assert found.ranks.ranked.tolist() == [True, False, False, False, True]


def test_titles_may_hold_line_separators(tmp_path: Path) -> None:
    found = read_published(*files(tmp_path, [json.dumps("A\u2028B", ensure_ascii=False)], ['{"output": "A\u2028B||C"}']))
    assert found.ranks.n_better.tolist() == [0]


@pytest.mark.parametrize(
    "row",
    [
        {"output": "A||B"},
        {"answer": "A||B"},
        {"completion": "A||B"},
        {"prompt": PROMPT, "completion": [{"role": "assistant", "content": "A||B"}]},
        {"messages": [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": "A||B"}]},
    ],
)
def test_where_the_reference_may_stand(tmp_path: Path, row: dict[str, Any]) -> None:
    found = read_published(*files(tmp_path, ['"A"'], [row]))
    assert found.ranks.n_better.tolist() == [0]


def test_candidates_hash_needs_every_list(tmp_path: Path) -> None:
    known, bare = {"input": PROMPT, "output": "A"}, {"output": "A"}
    assert read_published(*files(tmp_path, ['"A"', '"A"'], [known, bare])).candidates_sha256 is None
    first = read_published(*files(tmp_path, ['"A"'], [known])).candidates_sha256
    shuffled = {"input": PROMPT.replace("A||B||C", "C||A||B"), "output": "A"}
    assert read_published(*files(tmp_path, ['"B"'], [shuffled])).candidates_sha256 == first


def test_unequal_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"result.jsonl has 1 lines and test.jsonl has 2"):
        read_published(*files(tmp_path, ['"A"'], [{"output": "A"}] * 2))


def test_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 lines"):
        read_published(*files(tmp_path, [], []))


@pytest.mark.parametrize(
    ("line", "what"), [("{", "test.jsonl:1 is no JSON"), ('["A"]', "list"), ('{"text": "A"}', "no reference answer.*text"), ('{"output": ""}', "no reference")]
)
def test_a_test_line_without_truth_is_refused(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        read_published(*files(tmp_path, ['"A"'], [line]))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none.jsonl"):
        read_published(tmp_path / "none.jsonl", tmp_path / "none.jsonl")
