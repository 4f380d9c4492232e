"""Read some fields of JSON objects, one a line, as text: quickly where a line is as it should be, with care where it is not.

msgspec reads only the fields that are asked for and passes over the rest, checking that it is JSON. What it refuses is read again by Python's own reader, which
knows what the official files hold beyond JSON (NaN, half a surrogate pair, bytes that are no UTF-8). Each line is decoded on its own: msgspec's `decode_lines`
takes an object that goes on in the next line, and two on one line.
"""

import io
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

from recmerge.data.sources.files import objects, text_frame, whole_lines
from recmerge.data.sources.raw import LINE, Rejects, valid_text

_FRAME = 16 << 20  # bytes of lines; many small frames cost more to make and to join
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
    """Reads one file.

    Args:
        file: Its name, for the rejects.
        fields: Keys to keep.
        rejects: Receives the lines that are no JSON object.
        needed: Which lines are kept; None: all.
        whole: The key whose values may stay whole numbers.
    """

    def __init__(self, file: str, fields: Sequence[str], rejects: Rejects, needed: Needed | None, whole: str | None) -> None:
        self._file, self._rejects, self._needed, self._whole = file, rejects, needed, whole
        self._names = {f"field_{i}": name for i, name in enumerate(fields)}
        self._object = msgspec.defstruct("Line", [(name, Any, None) for name in self._names], rename=self._names, gc=False)
        self._decoder = msgspec.json.Decoder(self._object)
        self._next = 1  # line
        self._clear()

    def read(self, block: bytes) -> bool:
        """Read the file's next lines, to stand in the next frame; return whether that has enough."""
        stream, found, n_without = io.BytesIO(block), list[msgspec.Struct](), 0
        while stream.tell() < len(block):
            try:
                found.extend(map(self._decoder.decode, stream))
            except _REFUSED:  # of a line; those before it are in the list
                number, end = self._next + len(found) + n_without, stream.tell()
                here = self._with_care(number, block[block.rfind(b"\n", 0, end - 1) + 1 : end])
                found += here
                if not here:
                    self._without.append(number)
                    n_without += 1
        for ours, column in self._columns.items():
            column += map(attrgetter(ours), found)
        self._next += len(found) + n_without
        self._size += len(block)
        return self._size >= _FRAME

    def frame(self) -> tuple[pl.DataFrame, int]:
        """Return (what is kept of the lines since the last frame, how many of them hold something)."""
        numbers, columns = np.delete(np.arange(self._first, self._next), np.array(self._without, np.int64) - self._first), self._columns
        n_filled = self._next - self._first - self._n_blank
        self._clear()
        if self._needed is not None:
            key = next(ours for ours, name in self._names.items() if name == self._needed.field)
            kept = self._needed(_as_text_series(key, columns[key]))
            numbers, columns = numbers[kept], {ours: list(compress(column, kept)) for ours, column in columns.items()}
        series = [(_as_series if name == self._whole else _as_text_series)(name, columns[ours]) for ours, name in self._names.items()]
        return pl.DataFrame([pl.Series(LINE, numbers, dtype=pl.Int64), *series]), n_filled

    def _clear(self) -> None:
        self._first, self._without, self._n_blank, self._size = self._next, list[int](), 0, 0
        self._columns: dict[str, list[Any]] = {ours: [] for ours in self._names}

    def _with_care(self, number: int, line: bytes) -> list[msgspec.Struct]:
        """Return the object of a line that was refused, none if it is blank or put aside."""
        self._n_blank += not line.strip()
        values = [value for _, _, value in objects(self._file, number, line, self._rejects, _json_object)]
        return [self._object(*valid_text(_as_text(value.get(name)) for name in self._names.values())) for value in values]


def _as_series(name: str, values: list[Any]) -> pl.Series:
    """Keep values that are whole numbers; write others as text: those of one kind at once, the rest one by one."""
    if isinstance(next((value for value in values if value is not None), None), int):
        with suppress(TypeError, OverflowError):
            numbers = pl.Series(name, values, dtype=pl.Int64)
            if not numbers.is_between(0, 1).any() or bool not in set(map(type, values)):  # a bool passes for 0 or 1
                return numbers
    with suppress(TypeError, OverflowError):  # not all are text
        return pl.Series(name, values, dtype=pl.String)
    return pl.Series(name, map(_as_text, values), dtype=pl.String)


def _as_text_series(name: str, values: list[Any]) -> pl.Series:
    return _as_series(name, values).cast(pl.String)


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


def json_frames(
    path: Path, fields: Sequence[str], rejects: Rejects, needed: Needed | None = None, whole: str | None = None
) -> Iterator[tuple[pl.DataFrame, int]]:
    """Read some fields of a file of JSON objects, one a line, frame by frame.

    A line gives the same values whatever lines stand around it. Of a key that stands twice in an object the last counts, as in Python; NaN is unknown.

    Args:
        path: A plain or gzipped file.
        fields: Keys to keep, as text; lists and objects stay JSON.
        rejects: Receives the lines that are no JSON object.
        needed: Which lines to keep; None: all. Others are not looked at closely.
        whole: The key that need not become text: Int64 in a frame where its values are whole numbers or unknown.

    Yields:
        (line and the fields, how many lines of its part of the file hold something).
    """
    reader = _Reader(path.name, fields, rejects, needed, whole)
    for block in whole_lines(path):
        if reader.read(block):
            yield reader.frame()
    rest = reader.frame()
    if rest[1]:
        yield rest


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
