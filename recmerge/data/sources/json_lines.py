"""Read some fields of JSON objects, one a line, as text: many lines at once where they are as they should be, one by one where they are not.

msgspec reads only the fields that are asked for and passes over the rest, checking that it is JSON; but one bad line makes it refuse the lines around it. Those
few are read again one by one, and what msgspec refuses then by Python's own reader, which knows what the official files hold beyond JSON (NaN, half a
surrogate pair, bytes that are no UTF-8).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from recmerge.data.sources.files import blocks, n_lines_in, objects, text_frame
from recmerge.data.sources.raw import LINE, Rejects, valid_text

_AT_ONCE = 1 << 18  # bytes; as many lines are read again for a bad one
_REFUSED = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(frozen=True)
class Needed:
    """Which lines are needed.

    Args:
        field: The key that tells.
        values: The values needed; lines where it is blank or missing are needed too, to be put aside.
    """

    field: str
    values: pl.Series

    def __call__(self, found: pl.Series) -> np.ndarray:
        """Return for each value of the field whether its line is needed."""
        text = found.str.strip_chars()
        return (text.is_in(self.values.implode()) | text.is_null() | (text == "")).to_numpy()


class _Reader:
    """Reads the blocks of one file.

    Args:
        file: Its name, for the rejects.
        fields: Keys to keep.
        needed: Which lines are kept; None: all.
        rejects: Receives the lines that are no JSON object.
    """

    def __init__(self, file: str, fields: Sequence[str], needed: Needed | None, rejects: Rejects) -> None:
        self._file, self._needed, self._rejects = file, needed, rejects
        self._names = {f"field_{i}": name for i, name in enumerate(fields)}
        self._object = msgspec.defstruct("Line", [(name, Any, None) for name in self._names], rename=self._names, gc=False)
        self._decoder = msgspec.json.Decoder(self._object)

    def frame(self, first: int, block: bytes) -> tuple[pl.DataFrame, int]:
        """Return (what is kept of a block's lines, how many of them hold something)."""
        numbers, found, n_filled = list[np.ndarray](), list[msgspec.Struct](), 0
        for part in _parts(block):
            n = n_lines_in(part)
            at_once = self._at_once(part, n)
            if at_once is None:
                places, at_once, n_read = self._one_by_one(first, bytes(part))
            else:
                places, n_read = np.arange(first, first + n), n
            numbers.append(places)
            found += at_once
            n_filled += n_read
            first += n
        return self._table(np.concatenate(numbers), found), n_filled

    def _at_once(self, lines: memoryview, n: int) -> list[msgspec.Struct] | None:
        """Read `n` lines; None where one of them is refused, empty or more than one object."""
        try:
            found = self._decoder.decode_lines(lines)
        except _REFUSED:
            return None
        return found if len(found) == n else None

    def _one_by_one(self, first: int, lines: bytes) -> tuple[np.ndarray, list[msgspec.Struct], int]:
        """Return (the numbers of the lines that are objects, the objects, how many lines hold something)."""
        numbers, found, n_filled = list[int](), list[msgspec.Struct](), 0
        for number, line in enumerate(lines.split(b"\n") if lines.strip() else [], first):
            if not line.strip():
                continue
            n_filled += 1
            try:
                here = [self._decoder.decode(line)]
            except _REFUSED:
                read = objects(self._file, number, line, self._rejects, _json_object)
                here = [self._object(*valid_text(_as_text(value.get(name)) for name in self._names.values())) for _, _, value in read]
            numbers += [number] * len(here)
            found += here
        return np.array(numbers, np.int64), found, n_filled

    def _table(self, numbers: np.ndarray, found: list[msgspec.Struct]) -> pl.DataFrame:
        """Return what is needed of some lines, as text."""
        if self._needed is not None:
            key = next(ours for ours, name in self._names.items() if name == self._needed.field)
            kept = self._needed(_as_series(key, map(attrgetter(key), found)))
            numbers, found = numbers[kept], list(compress(found, kept))
        columns = [_as_series(name, map(attrgetter(ours), found)) for ours, name in self._names.items()]
        return pl.DataFrame([pl.Series(LINE, numbers, dtype=pl.Int64), *columns])


def _parts(block: bytes) -> Iterator[memoryview]:
    """Cut a block into pieces of whole lines."""
    view, at = memoryview(block), 0
    while at < len(block):
        end = block.rfind(b"\n", at, at + _AT_ONCE) + 1 or block.find(b"\n", at) + 1
        yield view[at:end]
        at = end


def _as_series(name: str, values: Iterable[Any]) -> pl.Series:
    """Write values as text: those of one kind at once, others one by one."""
    held = list(values)
    with suppress(TypeError, OverflowError):  # not all are text
        return pl.Series(name, held, dtype=pl.String)
    if set(map(type, held)) <= {int, type(None)}:  # a bool would pass for a number
        with suppress(TypeError, OverflowError):
            return pl.Series(name, held, dtype=pl.Int64).cast(pl.String)
    return pl.Series(name, map(_as_text, held), dtype=pl.String)


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

    A line gives the same values whatever lines stand around it. Of a key that stands twice in an object the last counts, as in Python; NaN is unknown.

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
    return json.loads(text, parse_constant=lambda name: None if name == "NaN" else float(name))


def _as_text(value: Any) -> str | None:
    """Write a value as text: numbers without an exponent, lists and objects as JSON."""
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
