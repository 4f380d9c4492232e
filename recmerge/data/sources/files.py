"""Read plain or gzipped files in blocks of whole lines, whatever is wrong with them."""

import ast
import io
import json
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from isal import igzip, igzip_lib

from recmerge.data.sources.inflating import MAX_RATIO, RATIO_FROM, inflated
from recmerge.data.sources.raw import LINE, Rejects, valid_text
from recmerge.errors import ArtifactError, DataError

_BLOCK = 4 << 20
_READ = 1 << 20
_AHEAD = 3  # blocks
_GZIP_MAGIC = b"\x1f\x8b"
_DAMAGED = (igzip.BadGzipFile, cast(type[Exception], igzip_lib.IsalError))  # isal's stub says that it is an instance
_OWN_PROCESS = 16 << 20  # bytes from which a gzipped file is worth a process
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
    zipped = _is_gzipped(path)
    with path.open("rb") as f:
        if zipped:
            yield from _gunzip(path, f)
            return
        while piece := f.read(_READ):
            yield piece


def _is_gzipped(path: Path) -> bool:
    with path.open("rb") as f:
        return f.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def _gunzip(path: Path, f: io.BufferedReader) -> Iterator[bytes]:
    written = 0
    try:
        with igzip.IGzipFile(fileobj=f) as stream:
            while piece := stream.read(_BLOCK):
                written += len(piece)
                if written > RATIO_FROM and written > MAX_RATIO * f.tell():
                    raise DataError(
                        f"{path} swells to more than {MAX_RATIO} times its size, after {f.tell()} bytes", fix="this is no real data; check where it is from"
                    )
                yield piece
    except EOFError as error:
        raise DataError(f"{path} is cut short: its gzip stream ends early, at byte {f.tell()}", fix="fetch or copy the file again") from error
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged near byte {f.tell()}: {error}", fix="fetch or copy the file again") from error


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
    line = 1
    for block in whole_lines(path):
        yield line, block
        line += n_lines_in(block)


def whole_lines(path: Path) -> Iterator[bytes]:
    """Read a file as `blocks` does, without counting its lines.

    Args:
        path: A plain or gzipped file.

    Yields:
        Whole lines, the last one with its line end.

    Raises:
        ArtifactError: There is no such file.
        DataError: It cannot be decompressed, or holds a line of more than 256 MB.
    """
    n_bytes = 0
    if path.is_file() and path.stat().st_size >= _OWN_PROCESS and _is_gzipped(path):
        with suppress(OSError):  # no process can be started: read all of it here
            for block in inflated(path):
                if not block:
                    return
                yield block
                n_bytes += len(block)
    for _, block in _read_ahead(line_blocks(str(path), decompressed(path))):
        if n_bytes < len(block):
            yield block[n_bytes:]
        n_bytes = max(0, n_bytes - len(block))  # was read before


def _read_ahead(parts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Decompress the next blocks while this one is parsed."""
    with ThreadPoolExecutor(1) as reader:
        coming = deque(reader.submit(next, parts, None) for _ in range(_AHEAD))
        while (part := coming.popleft().result()) is not None:
            coming.append(reader.submit(next, parts, None))
            yield part


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
    line, kept, size = 1, list[bytes](), 0
    for piece in pieces:
        size += len(piece)
        cut = piece.rfind(b"\n") + 1 if size >= _BLOCK else 0
        if cut:
            block = b"".join([*kept, memoryview(piece)[:cut]])
            yield line, block
            line += n_lines_in(block)
            kept, size = [piece[cut:]], len(piece) - cut
        else:
            kept.append(piece)
            if size > _BLOCK + _MAX_LINE:
                n_before = sum(part.count(b"\n") for part in kept)
                raise DataError(f"{name}:{line + n_before} is longer than {_MAX_LINE >> 20} MB", fix="is this a file of lines?")
    data = b"".join(kept)
    if data.strip():
        yield line, data if data.endswith(b"\n") else data + b"\n"


def n_lines_in(block: bytes | memoryview) -> int:
    """Return how many lines end in a block."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))  # far quicker than bytes.count for one byte that is so frequent


def objects(file: str, first: int, block: bytes, rejects: Rejects, parse: Callable[[str], Any] = json.loads) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Read the objects of a block one by one, putting bad lines aside.

    Args:
        file: The file's name, for the rejects.
        first: Number of the block's first line.
        block: Whole lines.
        rejects: Receives the lines that are no object.
        parse: From a line's text to its object.

    Yields:
        (number of the line, its text, the object).
    """
    for number, raw in enumerate(block.split(b"\n"), first):
        text = raw.decode("utf-8", "replace").strip().removeprefix("\ufeff")
        if not text:
            continue
        try:
            value = parse(text)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            value = None
        if isinstance(value, dict):
            yield number, text, value
        else:
            rejects.add(file, number, "malformed", text)


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's compiler, on backslashes that escape nothing
        return ast.literal_eval(text)
