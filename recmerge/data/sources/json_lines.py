"""Read some fields of JSON objects, one a line, as text: quickly where a line is as it should be, carefully where it is not.

polars reads many lines at once, but one bad line makes it refuse them all, without saying which it is. Lines that do not begin and end as objects do are set
aside at once; of lines that are refused nevertheless ever smaller parts are tried, and only the last few are read one by one. So a bad line
costs its neighbours little.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recmerge.data.sources.files import blocks, objects, text_frame
from recmerge.data.sources.raw import LINE, Rejects

_FEW = 200  # refused lines that are read one by one: polars needs as long to start as for reading some hundred
_PARTS = 4  # that more refused lines are tried in
# What polars 2.1 gets wrong or writes in its own way: half of a surrogate pair becomes NUL or is joined with any character that follows, quotes in lists and
# objects are not escaped, the last digit of a fraction may differ.
_ODD = r"\x00|[\x{10000}-\x{10FFFF}]|^[\[{]|^-?[0-9]+\.[0-9]+$"


@dataclass(frozen=True)
class Needed:
    """Which lines are needed.

    Args:
        field: The key that tells.
        values: The values needed; lines where it is blank or missing are needed too, to be put aside.
    """

    field: str
    values: pl.Series

    def __call__(self) -> pl.Expr:
        """Return the expression that is true where a line is needed."""
        text = pl.col(self.field).str.strip_chars()
        return text.is_in(self.values.implode()) | text.is_null() | (text == "")


@dataclass(frozen=True)
class _Lines:
    """The lines of a block.

    Args:
        block: Whole lines.
        first: The number of its first line.
        ends: Where each line ends, the place of its line feed.
    """

    block: bytes
    first: int
    ends: np.ndarray

    @classmethod
    def of(cls, block: bytes, first: int) -> "_Lines":
        return cls(block, first, np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")))

    def start(self, at: int) -> int:
        return int(self.ends[at - 1]) + 1 if at else 0

    def numbered(self, places: np.ndarray) -> list[tuple[int, bytes]]:
        """Return (number, line) of some lines."""
        return [(self.first + at, self.block[self.start(at) : self.ends[at]]) for at in places.tolist()]

    def joined(self, places: np.ndarray) -> bytes:
        """Return some lines, in order, as one piece."""
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
        return b"".join(self.block[self.start(run[0]) : self.ends[run[-1]] + 1] for run in runs)

    def sorted_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of (lines that begin and end as an object does, others that are not empty)."""
        text = np.frombuffer(self.block, np.uint8)
        starts = np.concatenate([[0], self.ends[:-1] + 1])
        filled = np.flatnonzero(self.ends > starts)
        starts, ends = starts[filled], self.ends[filled]
        last = text[ends - 1]
        last = np.where((last == ord("\r")) & (ends - 1 > starts), text[ends - 2], last)
        whole = (text[starts] == ord("{")) & np.isin(text[starts + 1], list(b'" }')) & (last == ord("}"))
        return filled[whole], filled[~whole]


@dataclass(frozen=True)
class _Reader:
    """What is read of one file.

    Args:
        file: Its name, for the rejects.
        fields: Keys to keep.
        needed: Which lines are kept; None: all.
        rejects: Receives the lines that are no JSON object.
    """

    file: str
    fields: Sequence[str]
    needed: Needed | None
    rejects: Rejects

    def frame(self, first: int, block: bytes) -> tuple[pl.DataFrame, int]:
        """Return (what is kept of a block's lines, how many of them hold something)."""
        lines = _Lines.of(block, first)
        places, doubtful = lines.sorted_out()
        slow = [doubtful]
        found = list(self._tried(lines, places, slow))
        n_lines = sum(frame.height for frame in found) + sum(1 for _, line in lines.numbered(np.concatenate(slow)) if line.strip())
        if not found:
            return self._careful(lines.numbered(np.sort(np.concatenate(slow)))), n_lines
        frame, odd = self._sound(pl.concat(found))
        again = lines.numbered(np.sort(np.concatenate([*slow, odd - first])))
        return (pl.concat([frame, self._careful(again)]).sort(LINE) if again else frame), n_lines

    def _tried(self, lines: _Lines, places: np.ndarray, slow: list[np.ndarray]) -> Iterator[pl.DataFrame]:
        """Yield the numbered values of lines read at once or, where they are refused, in parts; the last refused ones are added to `slow`."""
        frame = self._quick(lines.joined(places)) if len(places) else None
        if frame is not None and frame.height == len(places):
            yield frame.insert_column(0, pl.Series(LINE, lines.first + places, dtype=pl.Int64))
        elif len(places) <= _FEW:
            slow.append(places)
        else:
            for part in np.array_split(places, _PARTS):
                yield from self._tried(lines, part, slow)

    def _quick(self, piece: bytes) -> pl.DataFrame | None:
        """Read a piece at once; None where one of its lines is refused."""
        try:
            return pl.read_ndjson(piece, schema=dict.fromkeys(self.fields, pl.String))
        except pl.exceptions.PolarsError:
            return None

    def _sound(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
        """Return (the lines needed, numbers of those that are to be read again for their odd values)."""
        if self.needed is not None:
            frame = frame.filter(self.needed() | pl.col(self.needed.field).str.contains(_ODD))
        odd = frame.select(pl.any_horizontal(pl.col(self.fields).str.contains(_ODD)).fill_null(False)).to_series()
        return (frame.filter(~odd), frame.filter(odd)[LINE].to_numpy()) if odd.any() else (frame, np.array([], np.int64))

    def _careful(self, lines: Iterable[tuple[int, bytes]]) -> pl.DataFrame:
        frame = parse_lines(self.file, lines, self.fields, self.rejects, _json_object)
        return frame if self.needed is None else frame.filter(self.needed())


def read_json_lines(path: Path, fields: Sequence[str], rejects: Rejects) -> tuple[pl.DataFrame, int]:
    """Read some fields of a file of JSON objects, one a line.

    Args:
        path: A plain or gzipped file.
        fields: Keys to keep, as text.
        rejects: Receives the lines that are no JSON object.

    Returns:
        (line and the fields, how many lines hold something).
    """
    parts = list(json_frames(path, fields, rejects))
    if not parts:
        return text_frame({LINE: [], **{f: [] for f in fields}}), 0
    return pl.concat([frame for frame, _ in parts]), sum(n for _, n in parts)


def json_frames(path: Path, fields: Sequence[str], rejects: Rejects, needed: Needed | None = None) -> Iterator[tuple[pl.DataFrame, int]]:
    """Read some fields of a file of JSON objects, one a line, block by block.

    A line gives the same values whatever lines stand around it. Of a key that stands twice in an object the first counts; NaN is unknown.

    Args:
        path: A plain or gzipped file.
        fields: Keys to keep, as text; lists and objects stay JSON.
        rejects: Receives the lines that are no JSON object.
        needed: Which lines to keep; None: all. Others are not looked at closely.

    Yields:
        (line and the fields, how many lines of the block hold something).
    """
    reader = _Reader(path.name, fields, needed, rejects)
    for first, block in blocks(path):
        yield reader.frame(first, block)


def parse_lines(file: str, lines: Iterable[tuple[int, bytes]], fields: Sequence[str], rejects: Rejects, parse: Callable[[str], Any]) -> pl.DataFrame:
    """Parse lines one by one, putting bad ones aside.

    Args:
        file: The file's name, for the rejects.
        lines: (number, line).
        fields: Keys to keep, as text.
        rejects: Receives the lines that are no object.
        parse: From a line's text to its object.

    Returns:
        line and the fields.
    """
    columns: dict[str, list[Any]] = {LINE: [], **{f: [] for f in fields}}
    for number, raw in lines:
        for _, _, value in objects(file, number, raw, rejects, parse):
            columns[LINE].append(number)
            for name in fields:
                columns[name].append(_as_text(value.get(name)))
    return text_frame(columns)


def _json_object(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_first_of_each_key, parse_constant=lambda name: None if name == "NaN" else float(name))


def _first_of_each_key(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    return values if len(values) == len(pairs) else dict(reversed(pairs))


def _as_text(value: Any) -> str | None:
    """Write a value as polars does where it reads a block at once."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return np.format_float_positional(value, trim="-")
    if isinstance(value, list | dict):
        try:
            return json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
        except (ValueError, RecursionError):
            return None
    return str(value)
