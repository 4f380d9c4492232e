"""The published code's result and test files, scored as published but without losing a row."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recmerge.errors import ArtifactError, DataError
from recmerge.evaluation.ranks import Ranks

SEPARATOR = "||"
_ANSWER_KEYS = ("output", "answer", "completion")
_PROMPT_KEYS = ("input", "prompt", "instruction", "messages")
_CANDIDATES = "Candidates: ["


@dataclass(frozen=True)
class PublishedResult:
    """What one pair of files holds.

    Args:
        ranks: One entry per line; user_id is the line's number. `n_candidates` is 0 where the test line's prompt shows no
            candidate list.
        lists: Candidate titles of every line, empty where the prompt shows none.
        malformed: Lines of the result that are no JSON string.
        off_list: Lines that name a title outside their candidates.
    """

    ranks: Ranks
    lists: tuple[tuple[str, ...], ...]
    malformed: int
    off_list: int

    @property
    def candidates_sha256(self) -> str | None:
        """Hash over the candidate titles line by line; None where some line shows none."""
        if not all(self.lists):
            return None
        lines = [json.dumps([str(number), sorted(titles)]) for number, titles in enumerate(self.lists, start=1)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_published(result: Path, test: Path) -> PublishedResult:
    """Rank the truth of every test line in the result line beside it.

    The truth is the text before the first `||` of the reference answer; the output is split at `||` and compared as it
    stands: no stripping, no case folding, no cleaning of titles.

    Source: WeaveRec's published code (2025), metrics.py.
    Departures: a result line that is no JSON string is a miss and keeps its place; the published code drops it, which
    shifts every later line against the wrong truth. Files of different lengths are refused.

    Args:
        result: One JSON string per line, titles joined by `||`.
        test: One JSON object per line; the reference answer under output, answer, completion or the assistant's turn
            of messages.

    Returns:
        The ranks and what could not be read.

    Raises:
        ArtifactError: A file cannot be read.
        DataError: The files are empty or of different lengths, or a test line has no reference answer.
    """
    outputs, tests = _lines(result), _lines(test)
    if len(outputs) != len(tests) or not tests:
        raise DataError(
            f"{result.name} has {len(outputs)} lines and {test.name} has {len(tests)}; both need one line per user",
            fix="give the result of exactly this test file (the published code appends to an old result on a second run)",
        )
    better, lists, malformed, off_list = [], [], 0, 0
    for number, (output, line) in enumerate(zip(outputs, tests, strict=True), start=1):
        truth, titles = _question(line, f"{test.name}:{number}")
        listed = _answer(output)
        malformed += listed is None
        off_list += bool(titles and listed is not None and set(listed) - set(titles))
        better.append(listed.index(truth) if listed is not None and truth in listed else np.inf)
        lists.append(titles)
    width = len(str(len(tests)))
    ranks = Ranks(
        user_id=np.asarray([f"{n:0{width}d}" for n in range(1, len(tests) + 1)], dtype=np.str_),
        n_candidates=np.asarray([len(titles) for titles in lists], dtype=np.int64),
        n_better=np.asarray(better, dtype=np.float64),
        n_tied=np.zeros(len(tests), dtype=np.int64),
    )
    return PublishedResult(ranks, tuple(lists), malformed, off_list)


def _lines(path: Path) -> list[str]:
    """Split at line feeds alone: titles may hold other characters that count as line ends elsewhere."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", fix="check the path") from error
    lines = text.split("\n")
    return lines[:-1] if lines[-1].strip() == "" else lines


def _answer(line: str) -> list[str] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value.strip().split(SEPARATOR) if isinstance(value, str) else None


def _question(line: str, place: str) -> tuple[str, tuple[str, ...]]:
    """Return a test line's truth and the candidates that its prompt shows, if it shows them."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is no JSON: {error}", fix="give the published test file, one JSON object per line") from None
    if not isinstance(row, dict):
        raise DataError(f"{place} holds a {type(row).__name__}, not an object", fix="give the published test file, one JSON object per line")
    reference = next((text for key in _ANSWER_KEYS if (text := _text(row.get(key), "assistant"))), None) or _text(row.get("messages"), "assistant")
    if not reference:
        raise DataError(
            f"{place} has no reference answer under {', '.join(_ANSWER_KEYS)} or messages; it has: {', '.join(map(str, row)) or 'nothing'}",
            fix="give the published test file",
        )
    prompt = next((text for key in _PROMPT_KEYS if _CANDIDATES in (text := _text(row.get(key), "user"))), "")
    shown, _, _ = prompt.partition(_CANDIDATES)[2].rpartition("]")
    return reference.split(SEPARATOR)[0], tuple(shown.split(SEPARATOR)) if shown else ()


def _text(value: Any, role: str) -> str:
    """Return a text, or the last turn of a role where the value is a conversation."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    turns = [t["content"] for t in value if isinstance(t, dict) and t.get("role") == role and isinstance(t.get("content"), str)]
    return turns[-1] if turns else ""
