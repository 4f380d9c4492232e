"""The Amazon 2023 files: reviews as JSON lines or as the 5-core CSV, items as JSON lines; times in milliseconds.

Source: Hou, Li, He, Yan, Chen and McAuley (2024), "Bridging language and items for retrieval and recommendation".
"""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recmerge.data.sources.amazon import read_events, read_items, read_reviews
from recmerge.data.sources.files import blocks
from recmerge.data.sources.raw import LINE, RawTables, Rejects, checked_items
from recmerge.data.sources.separated import plain_frames
from recmerge.names import BRAND, CATEGORY, ITEM_ID, TIMESTAMP, TITLE, USER_ID

_MAIN = "main_category"
_REVIEW = {"user_id": USER_ID, "parent_asin": ITEM_ID, "timestamp": TIMESTAMP}
_RATING = ("user_id", "parent_asin", "rating", "timestamp")
_ITEM = {"parent_asin": ITEM_ID, "title": TITLE, "store": BRAND, "categories": CATEGORY, _MAIN: _MAIN}


def read_amazon2023(files: Mapping[str, Path], columns: Mapping[str, str | None]) -> RawTables:
    """Read one category of Amazon 2023.

    An item is a product with all its colours and sizes, the `parent_asin`, for only these have titles. The brand is the `store`.

    Args:
        files: "reviews" (*.jsonl.gz, or a 5-core *.csv.gz) and "meta" (meta_*.jsonl.gz).
        columns: Not used: the official files name their fields alike.

    Returns:
        The raw tables; of the items only those that were reviewed. Repeats and titles are treated as in Amazon 2018.

    Raises:
        ArtifactError: A file does not exist.
        DataError: A file is empty or damaged.
    """
    rejects, counts = Rejects(), dict[str, int]()
    path = files["reviews"]
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        rated = plain_frames(path.name, blocks(path), ",", _RATING, rejects, header=True)
        frames = ((frame.rename(_REVIEW).select(LINE, *_REVIEW.values()), n) for frame, n in rated)
        events, n_lines = read_events(path, frames, rejects, counts, milliseconds=True)
    else:
        events, n_lines = read_reviews(path, _REVIEW, rejects, counts, milliseconds=True)
    items, n_items = read_items(files["meta"], _ITEM, events[ITEM_ID].unique(), rejects, counts)
    items = items.with_columns(pl.col(CATEGORY).fill_null(pl.col(_MAIN)))
    return RawTables(events, checked_items(files["meta"].name, items, rejects, counts), rejects, n_lines + n_items, counts)
