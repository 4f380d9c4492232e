"""MovieLens as GroupLens packs it, from 100K to 32M: one zip, whose members say which of its three shapes it has.

Source: Harper and Konstan (2015), "The MovieLens datasets: history and context".
"""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import polars as pl

from recmerge.data.sources.files import line_blocks
from recmerge.data.sources.raw import LINE, RawTables, Rejects, checked_interactions, checked_items, require_some
from recmerge.data.sources.separated import parse_separated, plain_frames
from recmerge.errors import ArtifactError, DataError, printable
from recmerge.names import BRAND, CATEGORY, ITEM_ID, TIMESTAMP, TITLE, USER_ID

_MAX_BYTES = 1 << 30  # the largest member, the ratings of 32M, has 877 MB
_MAX_RATIO, _RATIO_FROM = 200, 64 << 20  # real text compresses 3 to 10 times; more is a bomb
_READ = 1 << 20
_RATING = (USER_ID, ITEM_ID, "rating", TIMESTAMP)
_RATING_CSV = ("userId", "movieId", "rating", "timestamp")
_MOVIE = (ITEM_ID, TITLE, CATEGORY)
_MOVIE_CSV = {"movieId": ITEM_ID, "title": TITLE, "genres": CATEGORY}
_MOVIE_100K = (ITEM_ID, TITLE, "released", "video", "url")  # and one flag per genre
_UNKNOWN = "unknown"  # a genre and a title of 100K
_NO_GENRES = "(no genres listed)"
_GENRES_100K = (
    _UNKNOWN, "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical",
    "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


class _Archive:
    """A zip of which members are read and none is unpacked to disk."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        for info in archive.infolist():
            _refuse_strange(path, info)
        self._members = {Path(i.filename).name: i for i in reversed(archive.infolist()) if not i.is_dir()}

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def pieces(self, name: str) -> Iterator[bytes]:
        if name not in self:
            raise DataError(f"{self.path} holds no {name}", fix="is it a MovieLens zip, as fetched?")
        info = self._members[name]
        if info.file_size > _MAX_BYTES or info.file_size > max(_RATIO_FROM, _MAX_RATIO * info.compress_size):
            raise DataError(
                f"{name} in {self.path} has {info.file_size:,} bytes, packed into {info.compress_size:,}; at most {_MAX_BYTES:,} are read, and "
                f"{_MAX_RATIO} times its packed size",
                fix="is it a MovieLens zip, as fetched?",
            )
        with self._archive.open(info) as f:
            while piece := f.read(_READ):
                yield piece

    def blocks(self, name: str) -> Iterator[tuple[int, bytes]]:
        yield from line_blocks(name, self.pieces(name))

    def whole(self, name: str) -> bytes:
        return b"".join(self.pieces(name))


def _refuse_strange(path: Path, info: zipfile.ZipInfo) -> None:
    """Refuse a zip with a member that no official one has: outside its folder, or no plain file. None would be unpacked, but such a zip lies."""
    name = info.orig_filename.replace("\\", "/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    outside = name.startswith("/") or name[1:2] == ":" or ".." in name.split("/")
    if outside or kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        what = "lies outside the archive" if outside else "is a link or a device"
        raise DataError(f"{path} holds a member '{printable(name)[:80]}' that {what}", fix="this is no official file; fetch it again")


def read_movielens(files: Mapping[str, Path], columns: Mapping[str, str | None]) -> RawTables:
    """Read any MovieLens set; every rating is an event, as in the literature.

    Args:
        files: "archive": ml-100k.zip, ml-1m.zip, ml-10m.zip, ml-20m.zip, ml-25m.zip or ml-32m.zip. Nothing is unpacked to disk.
        columns: Not used: the official files name their fields alike.

    Returns:
        The raw tables; genres are the category.

    Raises:
        ArtifactError: The archive does not exist.
        DataError: It is no zip, is damaged, or lacks ratings or movies.
    """
    path = files["archive"]
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", fix="recmerge data fetch movielens")
    try:
        with zipfile.ZipFile(path) as zipped:
            archive = _Archive(path, zipped)
            shape = next((name for name in _SHAPES if name in archive), None)
            if shape is None:
                raise DataError(f"{path} holds no {' or '.join(_SHAPES)}", fix="is it a MovieLens zip, as fetched?")
            return _SHAPES[shape](archive)
    except PermissionError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:  # RuntimeError: encrypted, or packed in an unknown way
        raise DataError(f"{path} is no whole zip file: {error}", fix="fetch it again") from error


def _read_dat(archive: _Archive) -> RawTables:
    """Read 1M and 10M: `::` between fields, titles in Latin-1 (1M) or UTF-8 (10M)."""
    text = archive.whole("movies.dat")
    encoding = "utf-8" if _is_utf8(text) else "latin-1"
    rejects = Rejects()
    events, n_lines = _events(archive, "ratings.dat", "::", _RATING, rejects)
    movies, n_movies = _joined("movies.dat", plain_frames("movies.dat", line_blocks("movies.dat", [text]), "::", _MOVIE, rejects, encoding=encoding))
    return _tables("movies.dat", events, movies, rejects, n_lines + n_movies)


def _read_100k(archive: _Archive) -> RawTables:
    """Read 100K: tabs between the ratings' fields, `|` between the movies', Latin-1, one flag per genre."""
    genres = _genres(archive.whole("u.genre")) if "u.genre" in archive else _GENRES_100K
    rejects = Rejects()
    events, n_lines = _events(archive, "u.data", "\t", _RATING, rejects)
    movies, n_movies = _joined("u.item", plain_frames("u.item", archive.blocks("u.item"), "|", (*_MOVIE_100K, *genres), rejects, encoding="latin-1"))
    names = [pl.when(pl.col(g).str.strip_chars() == "1").then(pl.lit(g)) for g in genres if g != _UNKNOWN]
    known_title = pl.when(pl.col(TITLE).str.strip_chars() != _UNKNOWN).then(pl.col(TITLE))
    items = movies.with_columns(known_title.alias(TITLE), pl.concat_str(names, separator="|", ignore_nulls=True).alias(CATEGORY))
    return _tables("u.item", events, items, rejects, n_lines + n_movies)


def _read_csv(archive: _Archive) -> RawTables:
    """Read 20M, 25M and 32M: CSV in UTF-8 with a header, titles in quotes where they hold a comma."""
    rejects = Rejects()
    events, n_lines = _events(archive, "ratings.csv", ",", _RATING_CSV, rejects, header=True)
    movies, n_movies = parse_separated("movies.csv", archive.whole("movies.csv"), ",", rejects)
    missing = [name for name in _MOVIE_CSV if name not in movies.columns]
    if missing:
        raise DataError(f"movies.csv in {archive.path} has no column {missing[0]}; it has: {', '.join(movies.columns[1:]) or 'none'}", fix="fetch it again")
    return _tables("movies.csv", events, movies.rename(_MOVIE_CSV), rejects, n_lines + n_movies)


_SHAPES: dict[str, Callable[[_Archive], RawTables]] = {"ratings.dat": _read_dat, "ratings.csv": _read_csv, "u.data": _read_100k}


def _events(archive: _Archive, member: str, separator: str, names: tuple[str, ...], rejects: Rejects, *, header: bool = False) -> tuple[pl.DataFrame, int]:
    """Check the ratings block by block, so that no more than a block is in memory with its text columns."""
    kept, n_lines = [], 0
    for frame, n in plain_frames(member, archive.blocks(member), separator, names, rejects, header=header):
        ours = frame.rename(dict(zip(names, _RATING, strict=True))).select(LINE, USER_ID, ITEM_ID, TIMESTAMP)
        kept.append(checked_interactions(member, ours, rejects))
        n_lines += n
    if not kept:
        require_some(archive.path, pl.DataFrame(), "ratings")
    return pl.concat(kept), n_lines


def _tables(member: str, events: pl.DataFrame, movies: pl.DataFrame, rejects: Rejects, n_lines: int) -> RawTables:
    counts: dict[str, int] = {}
    genres = pl.when(~pl.col(CATEGORY).is_in(["", _NO_GENRES])).then(pl.col(CATEGORY).str.replace_all("|", " ", literal=True))
    items = movies.with_columns(genres.alias(CATEGORY), pl.lit(None, pl.String).alias(BRAND))
    return RawTables(events, checked_items(member, items, rejects, counts), rejects, n_lines, counts)


def _joined(member: str, frames: Iterator[tuple[pl.DataFrame, int]]) -> tuple[pl.DataFrame, int]:
    parts = list(frames)
    if not parts:
        raise DataError(f"{member} holds no movies", fix="fetch it again")
    return pl.concat([frame for frame, _ in parts]), sum(n for _, n in parts)


def _genres(data: bytes) -> tuple[str, ...]:
    """Read the genres of 100K, `Action|1`, in the order of the movies' flags."""
    lines = (line.strip().rpartition("|") for line in data.decode("latin-1").split("\n"))
    return tuple(name for _, name in sorted((int(place), name) for name, _, place in lines if place.isdigit()))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
