"""Any CSV, TSV, Parquet or JSON lines, with a column mapping."""

import difflib
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recmerge.data.sources.json_lines import read_json_lines
from recmerge.data.sources.raw import LINE, RawTables, Rejects, checked_interactions, checked_items, require_some
from recmerge.data.sources.separated import read_separated
from recmerge.errors import ArtifactError, DataError
from recmerge.names import BRAND, CATEGORY, ITEM_ID, TIMESTAMP, TITLE, USER_ID

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".inter": "\t", ".item": "\t"}
_JSON = {".jsonl", ".ndjson", ".json"}
_PARQUET = {".parquet", ".pq"}


def read_table(files: Mapping[str, Path], columns: Mapping[str, str | None]) -> RawTables:
    """Read two tables, of interactions and of items.

    Args:
        files: "interactions" and "items".
        columns: Our column names to theirs; None: the file has none. A timestamp, brand or category column that
            is named but absent is unknown for all; the others must be there.

    Returns:
        The raw tables.

    Raises:
        ArtifactError: A file does not exist.
        DataError: A file is empty, damaged, of an unknown kind, or lacks a column.
    """
    rejects, counts = Rejects(), dict[str, int]()
    path, items_path = files["interactions"], files["items"]
    events, n_lines = _read(path, _wanted(columns, USER_ID, ITEM_ID, TIMESTAMP), (USER_ID, ITEM_ID), rejects)
    require_some(path, events, "interactions")
    items, n_items = _read(items_path, _wanted(columns, ITEM_ID, TITLE, BRAND, CATEGORY), (ITEM_ID, TITLE), rejects)
    require_some(items_path, items, "items")
    return RawTables(
        interactions=checked_interactions(path.name, events, rejects),
        items=checked_items(items_path.name, items, rejects, counts),
        rejects=rejects,
        n_lines=n_lines + n_items,
        counts=counts,
    )


def _wanted(columns: Mapping[str, str | None], *names: str) -> dict[str, str | None]:
    return {name: columns.get(name, name) for name in names}


def _read(path: Path, wanted: Mapping[str, str | None], needed: tuple[str, ...], rejects: Rejects) -> tuple[pl.DataFrame, int]:
    """Read one file as line and our columns, all text."""
    ending = _ending(path)
    if ending in _SEPARATORS:
        frame, n_lines = read_separated(path, _SEPARATORS[ending], rejects)
    elif ending in _JSON:
        frame, n_lines = read_json_lines(path, [theirs for theirs in wanted.values() if theirs], rejects)
        frame = frame.drop(c for c in frame.columns if c != LINE and frame[c].null_count() == frame.height)
    elif ending in _PARQUET:
        frame, n_lines = _read_parquet(path)
    else:
        known = ", ".join(sorted({*_SEPARATORS, *_JSON, *_PARQUET}))
        raise DataError(f"{path} ends in '{ending}', known are {known}, each also with .gz", fix="rename or convert the file")
    require_some(path, frame, "rows")
    for name in needed:
        if wanted[name] not in frame.columns:
            raise _missing(path, name, wanted[name], frame.columns)
    present = {ours: theirs if theirs in frame.columns else None for ours, theirs in wanted.items()}
    return frame.select(
        LINE, *(pl.lit(None, pl.String).alias(ours) if theirs is None else pl.col(theirs).alias(ours) for ours, theirs in present.items())
    ), n_lines


def _ending(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _read_parquet(path: Path) -> tuple[pl.DataFrame, int]:
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", fix="check the path; paths in a YAML are read from the YAML's own folder")
    try:
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="write or copy the file again") from error
    texts = [_seconds(c, t).cast(pl.String, strict=False) for c, t in frame.schema.items() if not t.is_nested()]
    return frame.select((pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias(LINE), *texts), frame.height


def _seconds(column: str, dtype: pl.DataType) -> pl.Expr:
    return pl.col(column).dt.epoch("s") if dtype.is_temporal() and dtype not in {pl.Time, pl.Duration} else pl.col(column)


def _missing(path: Path, ours: str, theirs: str | None, found: list[str]) -> DataError:
    names = [c for c in found if c != LINE]
    near = difflib.get_close_matches(theirs or ours, names, n=1, cutoff=0.4)
    hint = f", nearest is '{near[0]}'" if near else ""
    suggestion = near[0] if near else names[0] if names else "..."
    return DataError(
        f"{path.name} has no column '{theirs}' for {ours}{hint}; it has: {', '.join(names)}",
        fix=f"name the right one, e.g. --set columns.{ours}={suggestion}",
    )


def read_catalogue(path: Path, columns: Mapping[str, str | None]) -> pl.DataFrame:
    """Read one table of items alone.

    Args:
        path: The table.
        columns: Our column names to theirs, see `read_table`.

    Returns:
        item_id, title, brand, category as text; null where unknown.

    Raises:
        ArtifactError: The file does not exist.
        DataError: It is empty, damaged, of an unknown kind, or lacks a column.
    """
    rejects = Rejects()
    items, _ = _read(path, _wanted(columns, ITEM_ID, TITLE, BRAND, CATEGORY), (ITEM_ID, TITLE), rejects)
    require_some(path, items, "items")
    return checked_items(path.name, items, rejects, {})
