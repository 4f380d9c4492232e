"""Read plain or gzipped files in blocks of whole lines, whatever is wrong with them."""

import ast
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recmerge.data.sources.raw import LINE, Rejects, valid_text
from recmerge.errors import ArtifactError, DataError

_BLOCK = 32 << 20
_READ = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_RATIO = 200  # real text compresses 3 to 20 times; more is a bomb
_RATIO_FROM = 64 << 20
_MAX_LINE = 256 << 20


def decompressed(path: Path) -> Iterator[bytes]:
    """Read a plain or gzipped file piece by piece.

    Args:
        path: The file; gzip is told by its first bytes, not its name.

    Yields:
        Pieces of its decompressed content.

    Raises:
        ArtifactError: There is no such file.
        DataError: The gzip stream is cut short or damaged, or swells beyond all measure.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", fix="check the path; paths in a YAML are read from the YAML's own folder")
    with path.open("rb") as f:
        zipped = f.read(2) == _GZIP_MAGIC
        f.seek(0)
        if zipped:
            yield from _gunzip(path, f)
            return
        while piece := f.read(_READ):
            yield piece


def _gunzip(path: Path, f: io.BufferedReader) -> Iterator[bytes]:
    read = written = 0
    stream = zlib.decompressobj(wbits=31)
    try:
        while piece := f.read(_READ):
            read += len(piece)
            while piece:
                out = stream.decompress(piece, _BLOCK)
                written += len(out)
                if written > _RATIO_FROM and written > _MAX_RATIO * read:
                    raise DataError(
                        f"{path} swells to more than {_MAX_RATIO} times its size, after {read} bytes", fix="this is no real data; check where it is from"
                    )
                yield out
                piece = stream.unconsumed_tail
                if stream.eof:
                    piece = stream.unused_data.lstrip(b"\0")
                    stream = zlib.decompressobj(wbits=31) if piece else stream
        if not stream.eof:
            raise DataError(f"{path} is cut short: its gzip stream ends early, at byte {read}", fix="fetch or copy the file again")
    except zlib.error as error:
        raise DataError(f"{path} is damaged near byte {read}: {error}", fix="fetch or copy the file again") from error


def blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read a file in blocks of whole lines.

    Args:
        path: A plain or gzipped file.

    Yields:
        (number of the block's first line, the block), the last line with its line end.

    Raises:
        ArtifactError: There is no such file.
        DataError: It cannot be decompressed, or holds a line of more than 256 MB.
    """
    yield from line_blocks(str(path), decompressed(path))


def line_blocks(name: str, pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Cut what is read of a file into blocks of whole lines.

    Args:
        name: What to call the file in an error.
        pieces: Its content.

    Yields:
        (number of the block's first line, the block), the last line with its line end.

    Raises:
        DataError: A line has more than 256 MB.
    """
    line, kept, size = 1, [], 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size >= _BLOCK:
            data = b"".join(kept)
            cut = data.rfind(b"\n") + 1
            if cut:
                yield line, data[:cut]
                line += data.count(b"\n", 0, cut)
            elif size > _MAX_LINE:
                raise DataError(f"{name}:{line} is longer than {_MAX_LINE >> 20} MB", fix="is this a file of lines?")
            kept, size = [data[cut:]], len(data) - cut
    data = b"".join(kept)
    if data.strip():
        yield line, data if data.endswith(b"\n") else data + b"\n"


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


def json_frames(path: Path, fields: Sequence[str], rejects: Rejects) -> Iterator[tuple[pl.DataFrame, int]]:
    """Read some fields of a file of JSON objects, one a line, block by block.

    Args:
        path: A plain or gzipped file.
        fields: Keys to keep, as text.
        rejects: Receives the lines that are no JSON object.

    Yields:
        (line and the fields, how many lines hold something).
    """
    for first, block in blocks(path):
        numbers = [first + i for i, text in enumerate(block.split(b"\n")) if text.strip()]
        frame = _fast_json(block, fields, numbers)
        yield (parse_lines(path.name, first, block, fields, rejects, json.loads) if frame is None else frame), len(numbers)


def _fast_json(block: bytes, fields: Sequence[str], numbers: list[int]) -> pl.DataFrame | None:
    """Parse a block at once; None where one of its lines needs a closer look."""
    try:
        frame = pl.read_ndjson(io.BytesIO(block), schema=dict.fromkeys(fields, pl.String))
    except pl.exceptions.PolarsError:
        return None
    odd = frame.select(pl.any_horizontal(pl.all().str.contains("\x00", literal=True)).any()).item()  # how a lone surrogate ends
    if frame.height != len(numbers) or odd:
        return None
    return frame.select(pl.Series(LINE, numbers, dtype=pl.Int64), pl.all())


def parse_lines(file: str, first: int, block: bytes, fields: Sequence[str], rejects: Rejects, parse: Callable[[str], Any]) -> pl.DataFrame:
    """Parse a block line by line, putting bad lines aside.

    Args:
        file: The file's name, for the rejects.
        first: Number of the block's first line.
        block: Whole lines.
        fields: Keys to keep, as text.
        rejects: Receives the lines that are no object.
        parse: From a line's text to its object.

    Returns:
        line and the fields.
    """
    columns: dict[str, list[Any]] = {LINE: [], **{f: [] for f in fields}}
    for number, raw in enumerate(block.split(b"\n"), first):
        text = raw.decode("utf-8", "replace").strip().removeprefix("\ufeff")
        if not text:
            continue
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = None
        if not isinstance(value, dict):
            rejects.add(file, number, "malformed", text)
            continue
        columns[LINE].append(number)
        for name in fields:
            columns[name].append(_as_text(value.get(name)))
    return text_frame(columns)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value)
    return str(value)


def text_frame(columns: Mapping[str, list[Any]]) -> pl.DataFrame:
    """Make a frame of line numbers and text that any UTF-8 file can hold.

    Args:
        columns: "line" and others.

    Returns:
        The frame; all but the line are text.
    """
    data = {
        name: pl.Series(name, values, dtype=pl.Int64) if name == LINE else pl.Series(name, valid_text(values), dtype=pl.String)
        for name, values in columns.items()
    }
    return pl.DataFrame(data)


def python_literal(text: str) -> Any:
    """Read a Python literal, as the official Amazon 2014 item files hold them; nothing is run."""
    return ast.literal_eval(text)
