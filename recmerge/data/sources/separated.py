"""Read tables whose fields stand between separators: CSV and TSV with quotes, and plain lines without."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from recmerge.data.sources.files import decompressed, text_frame
from recmerge.data.sources.raw import LINE, Rejects
from recmerge.errors import DataError

_QUOTED = re.compile(rb'"[^"]*"')
_UNIT = b"\x1f"  # stands for a separator of several characters, which polars cannot take


def read_separated(path: Path, separator: str, rejects: Rejects) -> tuple[pl.DataFrame, int]:
    """Read a CSV or TSV file, every column as text.

    Args:
        path: A plain or gzipped file with a header line.
        separator: One character.
        rejects: Receives the rows with too many or too few fields.

    Returns:
        (line and the file's columns, how many rows it has). A row that spans lines counts as one.
    """
    return parse_separated(path.name, b"".join(decompressed(path)), separator, rejects)


def parse_separated(file: str, data: bytes, separator: str, rejects: Rejects) -> tuple[pl.DataFrame, int]:
    """Read the content of a CSV or TSV file, every column as text.

    Args:
        file: The file's name, for the rejects.
        data: Its content, a header line first.
        separator: One character.
        rejects: Receives the rows with too many or too few fields.

    Returns:
        (line and the file's columns, how many rows it has). A row that spans lines counts as one.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        return pl.DataFrame(), 0
    try:
        frame = pl.read_csv(io.BytesIO(data), separator=separator, infer_schema=False, encoding="utf8-lossy")
    except pl.exceptions.PolarsError:
        return _slow_csv(file, data, separator, rejects)
    numbered = frame.select((pl.int_range(pl.len(), dtype=pl.Int64) + 2).alias(LINE), pl.all())
    rows = numbered.filter(~pl.all_horizontal(pl.all().exclude(LINE).is_null()))
    # polars refuses rows with too many fields and fills those with too few: the separators of the whole tell whether there are any
    if _QUOTED.sub(b"", data).count(separator.encode()) != (frame.width - 1) * (rows.height + 1):
        return _slow_csv(file, data, separator, rejects)
    return rows, rows.height


def _slow_csv(file: str, data: bytes, separator: str, rejects: Rejects) -> tuple[pl.DataFrame, int]:
    reader = csv.reader(io.StringIO(data.decode("utf-8", "replace").replace("\0", ""), newline=""), delimiter=separator)
    header = next(reader)
    rows, numbers, n_rows = [], [], 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            rejects.add(file, reader.line_num, "malformed", str(error))
            continue
        if row:
            n_rows += 1
            if len(row) == len(header):
                rows.append(row)
                numbers.append(reader.line_num)
            else:
                rejects.add(file, reader.line_num, "malformed", separator.join(row))
    columns = {name: [row[i] or None for row in rows] for i, name in enumerate(header)}
    return text_frame({LINE: numbers, **columns}), n_rows


def plain_frames(
    file: str,
    blocks: Iterable[tuple[int, bytes]],
    separator: str,
    names: Sequence[str],
    rejects: Rejects,
    *,
    encoding: str = "utf-8",
    header: bool = False,
) -> Iterator[tuple[pl.DataFrame, int]]:
    """Read lines of separated fields, block by block; quotes mean nothing, so a stray one can swallow no further lines.

    Args:
        file: The file's name, for the rejects and errors.
        blocks: Whole lines, see `files.blocks`.
        separator: One or more characters.
        names: The columns, in the file's order.
        rejects: Receives the lines with too many or too few fields.
        encoding: Of the text; what it cannot be becomes U+FFFD.
        header: Whether the first line names the columns; it must name these.

    Yields:
        (line and the columns as text, null where empty; how many lines hold something).

    Raises:
        DataError: The header names other columns.
    """
    for first, block in blocks:
        start, data = first, block
        if header and first == 1:
            head, _, data = block.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
            _check_header(file, head.decode(encoding, "replace"), separator, names)
            start = 2
        text = data if data.isascii() else data.decode(encoding, "replace").encode()
        if text.strip():
            before = len(rejects.found)
            frame = _plain_frame(file, start, text, separator.encode(), names, rejects)
            yield frame, frame.height + len(rejects.found) - before


def _check_header(file: str, line: str, separator: str, names: Sequence[str]) -> None:
    found = [name.strip().strip('"') for name in line.split(separator)]
    if found != list(names):
        raise DataError(f"{file} begins with '{line.strip()[:80]}', expected '{separator.join(names)}'", fix="is this the official file, as it was published?")


def _plain_frame(file: str, start: int, text: bytes, separator: bytes, names: Sequence[str], rejects: Rejects) -> pl.DataFrame:
    try:
        frame = _columns(text, separator, names)
        # more fields than names are refused above, so this total tells whether a line has fewer, or none
        if text.count(separator) == frame.height * (len(names) - 1):
            return frame.select((pl.int_range(pl.len(), dtype=pl.Int64) + start).alias(LINE), pl.all())
    except pl.exceptions.PolarsError:
        pass
    numbers, kept = [], []
    for number, line in enumerate(text.split(b"\n"), start):
        if line.count(separator) == len(names) - 1:
            numbers.append(number)
            kept.append(line)
        elif line.strip():
            rejects.add(file, number, "malformed", line.decode())
    if not kept:
        return text_frame({LINE: [], **{name: [] for name in names}})
    return _columns(b"\n".join(kept), separator, names).select(pl.Series(LINE, numbers, dtype=pl.Int64), pl.all())


def _columns(text: bytes, separator: bytes, names: Sequence[str]) -> pl.DataFrame:
    if len(separator) > 1:
        text, separator = text.replace(_UNIT, b" ").replace(separator, _UNIT), _UNIT
    return pl.read_csv(io.BytesIO(text), separator=separator.decode(), has_header=False, schema=dict.fromkeys(names, pl.String), quote_char=None)
