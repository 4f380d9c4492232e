"""The Amazon 2018 files: reviews and items as JSON lines.

Source: Ni, Li and McAuley (2019), "Justifying recommendations using distantly-labeled reviews and fine-grained aspects".
"""

from collections.abc import Mapping
from pathlib import Path

from recmerge.data.sources.amazon import read_items, read_reviews
from recmerge.data.sources.raw import RawTables, Rejects, checked_items
from recmerge.names import BRAND, CATEGORY, ITEM_ID, TIMESTAMP, TITLE, USER_ID

_REVIEW = {"reviewerID": USER_ID, "asin": ITEM_ID, "unixReviewTime": TIMESTAMP}
_ITEM = {"asin": ITEM_ID, "title": TITLE, "brand": BRAND, "category": CATEGORY}


def read_amazon2018(files: Mapping[str, Path], columns: Mapping[str, str | None]) -> RawTables:
    """Read one category of Amazon 2018.

    What the files are known for is counted: lines of one item that stand several times (one is taken), reviews of one user, item and
    time (one is taken), and titles that are a page's script instead of a title (unknown).

    Args:
        files: "reviews" (*_5.json.gz, or the whole *.json.gz) and "meta" (meta_*.json.gz).
        columns: Not used: the official files name their fields alike.

    Returns:
        The raw tables; of the items only those that were reviewed.

    Raises:
        ArtifactError: A file does not exist.
        DataError: A file is empty or damaged.
    """
    rejects, counts = Rejects(), dict[str, int]()
    events, n_lines = read_reviews(files["reviews"], _REVIEW, rejects, counts)
    items, n_items = read_items(files["meta"], _ITEM, events[ITEM_ID].unique(), rejects, counts)
    return RawTables(events, checked_items(files["meta"].name, items, rejects, counts), rejects, n_lines + n_items, counts)
