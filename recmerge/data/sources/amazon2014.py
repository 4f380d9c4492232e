"""The official Amazon 2014 files: 5-core reviews as JSON lines, items as Python literals.

Source: McAuley, Targett, Shi and van den Hengel (2015), "Image-based recommendations on styles and substitutes".
"""

import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recmerge.data.sources.amazon import all_events, category_path, review_frames
from recmerge.data.sources.files import blocks, python_literal
from recmerge.data.sources.json_lines import parse_lines
from recmerge.data.sources.raw import LINE, RawTables, Rejects, checked_items, require_some
from recmerge.names import BRAND, CATEGORY, ITEM_ID, TIMESTAMP, TITLE, USER_ID

_REVIEW = {"reviewerID": USER_ID, "asin": ITEM_ID, "unixReviewTime": TIMESTAMP}
_ITEM = {"asin": ITEM_ID, "title": TITLE, "brand": BRAND, "categories": CATEGORY}
_ASIN = re.compile(rb"""['"]asin['"]:\s*['"]([^'"]+)['"]""")


def read_amazon2014(files: Mapping[str, Path], columns: Mapping[str, str | None]) -> RawTables:
    """Read one category of Amazon 2014.

    Args:
        files: "reviews" (reviews_*_5.json.gz) and "meta" (meta_*.json.gz).
        columns: Not used: the official files name their fields alike.

    Returns:
        The raw tables; of the items only those that were reviewed, for the item files hold the whole catalogue.

    Raises:
        ArtifactError: A file does not exist.
        DataError: A file is empty or damaged.
    """
    rejects, counts = Rejects(), dict[str, int]()
    events, n_lines = all_events(files["reviews"], review_frames(files["reviews"], _REVIEW, rejects), rejects)
    items, n_items = _read_meta(files["meta"], set(events[ITEM_ID].unique()), rejects)
    if not events.is_empty():  # where no review could be used, the rejects say more
        require_some(files["meta"], items, "reviewed items")
    return RawTables(events, checked_items(files["meta"].name, items, rejects, counts), rejects, n_lines + n_items, counts)


def _read_meta(path: Path, needed: set[str], rejects: Rejects) -> tuple[pl.DataFrame, int]:
    """Read the items that are needed; parsing a literal is slow, so others are passed over by their asin."""
    frames, n_lines = [], 0
    asins = {asin.encode() for asin in needed}
    for first, block in blocks(path):
        lines = [(n, line) for n, line in enumerate(block.split(b"\n"), first) if line.strip() and _may_be_needed(line, asins)]
        n_lines += len(lines)
        frames.append(parse_lines(path.name, lines, list(_ITEM), rejects, python_literal))
    items = pl.concat(frames or [parse_lines(path.name, [], list(_ITEM), rejects, python_literal)]).rename(_ITEM)
    paths = pl.Series(CATEGORY, [category_path(text) for text in items[CATEGORY]], dtype=pl.String)
    return items.with_columns(paths).filter(pl.col(ITEM_ID).is_in(needed) | pl.col(ITEM_ID).is_null()).select(LINE, *_ITEM.values()), n_lines


def _may_be_needed(line: bytes, asins: set[bytes]) -> bool:
    found = _ASIN.search(line)
    if found is None or found[1] in asins:
        return True
    return line.count(b"asin") > 1 and any(asin in asins for asin in _ASIN.findall(line))  # a description may speak of another item
