"""MovieLens 1M as GroupLens packs it: Latin-1 lines with `::` between fields, in one zip.

Source: Harper and Konstan (2015), "The MovieLens datasets: history and context".
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recmerge.data.sources.raw import LINE, RawTables, Rejects, checked_interactions, checked_items, require_some
from recmerge.errors import ArtifactError, DataError
from recmerge.names import BRAND, CATEGORY, ITEM_ID, TIMESTAMP, TITLE, USER_ID

_MAX_BYTES = 1 << 30
_RATINGS = (USER_ID, ITEM_ID, "rating", TIMESTAMP)
_MOVIES = (ITEM_ID, TITLE, CATEGORY)


def read_movielens(files: Mapping[str, Path], columns: Mapping[str, str | None]) -> RawTables:
    """Read MovieLens 1M; every rating is an event, as in the literature.

    Args:
        files: "archive" (ml-1m.zip). Nothing is unpacked to disk.
        columns: Not used: the official files name no fields.

    Returns:
        The raw tables; genres are the category.

    Raises:
        ArtifactError: The archive does not exist.
        DataError: It is no zip, is damaged, or lacks ratings.dat or movies.dat.
    """
    path = files["archive"]
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", fix="recmerge data fetch movielens")
    try:
        with zipfile.ZipFile(path) as archive:
            texts = {name: _member(path, archive, name) for name in ("ratings.dat", "movies.dat")}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{path} is no whole zip file: {error}", fix="fetch it again") from error
    rejects = Rejects()
    ratings = _table("ratings.dat", texts["ratings.dat"], _RATINGS, rejects)
    movies = _table("movies.dat", texts["movies.dat"], _MOVIES, rejects)
    require_some(path, ratings, "ratings")
    n_lines = ratings.height + movies.height + len(rejects.found)
    events = checked_interactions("ratings.dat", ratings.select(LINE, USER_ID, ITEM_ID, TIMESTAMP), rejects)
    items = movies.with_columns(pl.col(CATEGORY).str.replace_all("|", " ", literal=True), pl.lit(None, pl.String).alias(BRAND))
    return RawTables(events, checked_items("movies.dat", items, rejects), rejects, n_lines)


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> str:
    found = [i for i in archive.infolist() if Path(i.filename).name == name]
    if not found:
        raise DataError(f"{path} holds no {name}", fix="is it ml-1m.zip, as fetched?")
    if found[0].file_size > _MAX_BYTES:
        raise DataError(f"{name} in {path} has {found[0].file_size:,} bytes, at most {_MAX_BYTES:,} are read", fix="is it ml-1m.zip, as fetched?")
    return archive.read(found[0]).decode("latin-1")


def _table(file: str, text: str, names: tuple[str, ...], rejects: Rejects) -> pl.DataFrame:
    numbers: list[int] = []
    rows: list[list[str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("::")
        if len(fields) == len(names):
            numbers.append(number)
            rows.append(fields)
        elif line.strip():
            rejects.add(file, number, "malformed", line)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return pl.DataFrame({LINE: numbers, **columns}, schema={LINE: pl.Int64, **dict.fromkeys(names, pl.String)})
