"""The published code's test files: questions as chat messages, in which users, items and times have no ids, only titles."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import polars as pl

from recmerge.data.prompts import SEPARATOR, Wording
from recmerge.data.sources.files import blocks, objects
from recmerge.data.sources.raw import Asked, RawTables, Rejects, valid_text
from recmerge.errors import DataError
from recmerge.names import BRAND, CANDIDATES, CATEGORY, ITEM_ID, TARGET, TIMESTAMP, TITLE, USER_ID

_MARK = "Candidates: ["
_SYSTEM, _USER, _ASSISTANT = _ROLES = ("system", "user", "assistant")
_EVENT_TYPES = pl.Schema({USER_ID: pl.String, ITEM_ID: pl.String, TIMESTAMP: pl.Int64})
_QUESTION_TYPES = pl.Schema({USER_ID: pl.String(), TARGET: pl.String(), CANDIDATES: pl.List(pl.String)})


@dataclass(frozen=True)
class _Line:
    """One question, its lists cut at every separator; a title that holds one is still in parts."""

    number: int
    history: list[str]
    candidates: list[str]
    answer: str


def read_published_testdata(files: Mapping[str, Path], columns: Mapping[str, str | None]) -> RawTables:
    """Read a file of the published code's `testdata` folder.

    A line is `{"messages": [system, user, assistant]}`. The user's turn shows a history and, behind `Candidates: [`, the candidates, both in
    brackets and joined by `||`; the assistant's begins with the target. The words around the lists are learnt from the file. A list of
    too many parts has a title that holds the separator: neighbouring parts that stand in no whole list are joined again.

    Source: WeaveRec's published data_process.py.
    Departures: the target is the candidate that the answer begins with, also where its title holds `||`; the published metrics take the
    text before the first `||`, which then is no candidate.

    Args:
        files: "testdata".
        columns: Not used.

    Returns:
        The raw tables with their questions. An item is its title, as it stands; a user is the number of a line, counted from 1, with
        zeros before it. Times are unknown. Counts: `titles_with_separator`, and `lists_with_equal_titles`, which two items of one
        title make or one that was drawn twice.

    Raises:
        ArtifactError: The file does not exist.
        DataError: It is damaged, or its first lines show no candidates.
    """
    path, rejects = files["testdata"], Rejects()
    lines, wording, n_lines = _read_lines(path, rejects)
    n_candidates = max(Counter(len(line.candidates) for line in lines).items(), key=lambda c: (c[1], c[0]), default=(0, 0))[0]
    known = {title for line in lines if len(line.candidates) == n_candidates for title in line.candidates}
    lists = [line.candidates if len(line.candidates) == n_candidates else _whole(line.candidates, n_candidates, known) for line in lines]
    separated = {title for titles in lists for title in titles or () if SEPARATOR in title}
    width = len(str(max([line.number for line in lines] + [reject.line for reject in rejects.found], default=1)))
    questions: list[tuple[str, str, list[str]]] = []
    events: list[tuple[str, str, None]] = []
    for line, titles in zip(lines, lists, strict=True):
        if titles is None:
            rejects.add(path.name, line.number, f"not_{n_candidates}_candidates", f"{len(line.candidates)}: {SEPARATOR.join(line.candidates)}")
        elif (target := _target(line.answer, titles)) is None:
            rejects.add(path.name, line.number, "target_not_listed", line.answer)
        else:
            user = f"{line.number:0{width}d}"
            questions.append((user, target, titles))
            events += [(user, title, None) for title in (*_joined(line.history, separated), target)]
    rejects.found.sort(key=lambda reject: reject.line)
    counts = {"titles_with_separator": len(separated), "lists_with_equal_titles": sum(len(set(titles)) < len(titles) for _, _, titles in questions)}
    interactions = pl.DataFrame(events, schema=_EVENT_TYPES, orient="row")
    asked = Asked(pl.DataFrame(questions, schema=_QUESTION_TYPES, orient="row"), wording)
    return RawTables(interactions, _items(interactions, asked), rejects, n_lines, counts, asked)


def _read_lines(path: Path, rejects: Rejects) -> tuple[list[_Line], Wording, int]:
    """Return the questions, how they are worded, and how many lines hold something."""
    lines: list[_Line] = []
    wording, n_lines = None, 0
    pool: dict[str, str] = {}  # a title stands in many lists, and once in memory

    def parts(text: str) -> list[str]:
        return [pool.setdefault(part, part) for part in text.split(SEPARATOR)]

    for first, block in blocks(path):
        n_lines += sum(1 for raw in block.split(b"\n") if raw.strip())
        turns = list(_turns(path.name, first, block, rejects))
        if wording is None and turns:
            wording = _wording(path, [turn for _, turn in turns])
        for number, turn in turns:
            lists = _lists(turn[_USER], wording) if wording else None
            if lists is None:
                rejects.add(path.name, number, "other_words", turn[_USER])
            elif not lists[0]:
                rejects.add(path.name, number, "no_history", turn[_USER])
            else:
                lines.append(_Line(number, parts(lists[0]), parts(lists[1]), turn[_ASSISTANT]))
    if wording is None:
        raise DataError(f"{path} holds no chat messages in any of its {n_lines} lines", fix="give a file of the published testdata folder")
    return lines, wording, n_lines


def _turns(file: str, first: int, block: bytes, rejects: Rejects) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the turns of each line by role, putting aside lines that are not one question and one answer."""
    for number, text, value in objects(file, first, block, rejects):
        messages = value.get("messages")
        turns = messages if isinstance(messages, list) else []
        pairs = [(turn.get("role"), turn.get("content")) for turn in turns if isinstance(turn, dict)]
        by_role = {role: _sound(content) for role, content in pairs if role in _ROLES and isinstance(content, str)}
        if len(turns) == len(by_role) and {_USER, _ASSISTANT} <= set(by_role):
            yield number, {_SYSTEM: "", **by_role}
        else:
            rejects.add(file, number, "not_one_question", text)


def _sound(text: str) -> str:
    return text if text.isascii() else str(valid_text([text])[0])


def _wording(path: Path, questions: Iterable[Mapping[str, str]]) -> Wording:
    """Return what most lines say around their lists, as a program words them all; titles may hold brackets, so only the outermost count."""
    found: Counter[Wording] = Counter()
    for turn in questions:
        head, mark, rest = turn[_USER].partition(_MARK)
        opening, closing, end = head.find("["), head.rfind("]"), rest.rfind("]")
        if mark and _MARK not in rest and 0 <= opening < closing and end >= 0:
            found[Wording(turn[_SYSTEM], head[: opening + 1], head[closing:] + mark, rest[end:])] += 1
    if not found:
        raise DataError(f"{path} shows no history in brackets and behind it '{_MARK}' in its first lines", fix="give a file of the published testdata folder")
    return found.most_common(1)[0][0]


def _lists(text: str, wording: Wording) -> tuple[str, str] | None:
    """Return the history and the candidates of a prompt; None where it is worded otherwise, or not only once."""
    fits = len(wording.before) + len(wording.between) + len(wording.after) <= len(text)
    if not fits or not text.startswith(wording.before) or not text.endswith(wording.after) or text.count(wording.between) != 1:
        return None
    history, _, candidates = text[len(wording.before) : len(text) - len(wording.after)].partition(wording.between)
    return history, candidates


def _whole(parts: Sequence[str], n: int, known: set[str]) -> list[str] | None:
    """Join neighbouring parts that are no title of a whole list; None unless that gives `n` titles."""
    titles: list[str] = []
    for is_title, group in groupby(parts, known.__contains__):
        run = list(group)
        titles += run if is_title else [SEPARATOR.join(run)]
    return titles if len(titles) == n else None


def _joined(parts: Sequence[str], separated: set[str]) -> list[str]:
    """Join the parts of a history that are together a title known to hold the separator, the longest first."""
    most = max((title.count(SEPARATOR) + 1 for title in separated), default=1)
    titles: list[str] = []
    place = 0
    while place < len(parts):
        n = next((n for n in range(most, 1, -1) if SEPARATOR.join(parts[place : place + n]) in separated), 1)
        titles.append(SEPARATOR.join(parts[place : place + n]))
        place += n
    return titles


def _target(answer: str, titles: Sequence[str]) -> str | None:
    """Return the candidate that an answer begins with, the longest where one is the beginning of another; None: it begins with none."""
    return max((title for title in titles if answer == title or answer.startswith(title + SEPARATOR)), key=len, default=None)


def _items(interactions: pl.DataFrame, asked: Asked) -> pl.DataFrame:
    titles = pl.concat([interactions[ITEM_ID], asked.questions[CANDIDATES].explode()]).unique().drop_nulls().sort()
    unknown = pl.lit(None, pl.String)
    return titles.to_frame(ITEM_ID).select(ITEM_ID, pl.col(ITEM_ID).alias(TITLE), unknown.alias(BRAND), unknown.alias(CATEGORY))
