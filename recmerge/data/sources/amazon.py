"""What the Amazon releases share: reviews that stand twice, items as JSON lines, titles with a page's code in them, paths of categories."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recmerge.data.sources.files import text_frame
from recmerge.data.sources.json_lines import Needed, json_frames
from recmerge.data.sources.raw import LINE, Rejects, checked_interactions, require_some
from recmerge.names import CATEGORY, ITEM_ID, TIMESTAMP, TITLE, USER_ID

_GATHERED = 200_000  # lines
_SCRIPT = re.compile(r"aPageStart|getTime\(\)|<script\b", re.IGNORECASE)
_TAG = re.compile(r"</?(?:a|b|body|br|div|em|font|h[1-6]|head|hr|html|i|img|li|ol|p|small|span|strong|style|sub|sup|table|td|tr|u|ul)\b[^<>]*>", re.IGNORECASE)


def read_reviews(path: Path, fields: Mapping[str, str], rejects: Rejects, counts: dict[str, int], *, milliseconds: bool = False) -> tuple[pl.DataFrame, int]:
    """Read reviews from JSON lines.

    Args:
        path: The file.
        fields: Their names for the user, item and time to ours.
        rejects: Receives the lines that cannot be used.
        counts: Receives `repeated_reviews`, see `without_repeats`.
        milliseconds: Whether times are in milliseconds.

    Returns:
        (user_id, item_id, timestamp in seconds, in the file's order; how many lines the file has).

    Raises:
        ArtifactError: The file does not exist.
        DataError: It is damaged, or holds no review.
    """
    return read_events(path, review_frames(path, fields, rejects), rejects, counts, milliseconds=milliseconds)


def review_frames(path: Path, fields: Mapping[str, str], rejects: Rejects) -> Iterator[tuple[pl.DataFrame, int]]:
    """Read reviews from JSON lines frame by frame.

    Args:
        path: The file.
        fields: Their names for the user, item and time to ours.
        rejects: Receives the lines that are no JSON object.

    Yields:
        (line, user_id, item_id as text, timestamp as text or Int64; how many lines its part of the file has).

    Raises:
        ArtifactError: The file does not exist.
        DataError: It is damaged.
    """
    time = next(theirs for theirs, ours in fields.items() if ours == TIMESTAMP)
    for frame, n in json_frames(path, list(fields), rejects, whole=time):
        yield frame.rename(fields), n


def read_events(
    path: Path, frames: Iterable[tuple[pl.DataFrame, int]], rejects: Rejects, counts: dict[str, int], *, milliseconds: bool = False
) -> tuple[pl.DataFrame, int]:
    """Check reviews block by block, so that no more than a block is in memory with its text columns.

    Args:
        path: The file.
        frames: line, user_id, item_id, timestamp, all text, the timestamp may be Int64; and how many lines each block has.
        rejects: Receives the reviews that cannot be used.
        counts: Receives `repeated_reviews`, see `without_repeats`.
        milliseconds: Whether times are in milliseconds.

    Returns:
        (user_id, item_id, timestamp in seconds, in the file's order; how many lines the file has).

    Raises:
        DataError: There is no review.
    """
    events, n_lines = all_events(path, frames, rejects, milliseconds=milliseconds)
    return without_repeats(events, counts), n_lines


def all_events(path: Path, frames: Iterable[tuple[pl.DataFrame, int]], rejects: Rejects, *, milliseconds: bool = False) -> tuple[pl.DataFrame, int]:
    """Check reviews block by block, as `read_events` does, and keep them all.

    Args:
        path: The file.
        frames: line, user_id, item_id, timestamp, all text, the timestamp may be Int64; and how many lines each block has.
        rejects: Receives the reviews that cannot be used, after the lines that the frames put aside.
        milliseconds: Whether times are in milliseconds.

    Returns:
        (user_id, item_id, timestamp in seconds, in the file's order; how many lines the file has).

    Raises:
        DataError: There is no review.
    """
    kept, n_lines, unusable = [], 0, Rejects()
    for frame, n in _gathered(frames):
        kept.append(checked_interactions(path.name, frame, unusable, milliseconds=milliseconds))
        n_lines += n
    rejects.found += unusable.found
    events = pl.concat(kept) if kept else pl.DataFrame()
    if not n_lines:
        require_some(path, events, "reviews")
    return events, n_lines


def _gathered(frames: Iterable[tuple[pl.DataFrame, int]]) -> Iterator[tuple[pl.DataFrame, int]]:
    """Put blocks together, for checking one costs as much as checking its first thousands of lines."""
    held, n_lines = list[pl.DataFrame](), 0
    for frame, n in frames:
        held.append(frame)
        n_lines += n
        if n_lines >= _GATHERED:
            yield pl.concat(held, how="vertical_relaxed"), n_lines
            held, n_lines = [], 0
    if held:
        yield pl.concat(held, how="vertical_relaxed"), n_lines


def without_repeats(events: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    """Keep one of the reviews of one user, item and time: the releases after 2014 hold some lines twice.

    A second review at another time is another event, and the build decides what becomes of it.

    Args:
        events: user_id, item_id, timestamp (null where unknown; two unknown ones count as equal).
        counts: Receives `repeated_reviews`, the events left out.

    Returns:
        The first ones, in order.
    """
    kept = events.unique([USER_ID, ITEM_ID, TIMESTAMP], keep="first", maintain_order=True)
    counts["repeated_reviews"] = events.height - kept.height
    return kept


def read_items(path: Path, fields: Mapping[str, str], needed: pl.Series, rejects: Rejects, counts: dict[str, int]) -> tuple[pl.DataFrame, int]:
    """Read the items that were reviewed from JSON lines that hold the whole catalogue.

    Args:
        path: The file.
        fields: Their names to ours, item_id, title and category among them; all but these three are taken as they are.
        needed: Ids of the items to keep.
        rejects: Receives the lines that are no JSON object, or have no item id.
        counts: Receives `script_titles`, titles that are a page's script and become unknown; `tagged_titles`, titles that lose HTML
            tags; `tagged_categories`, items of which a category was such code and is left out.

    Returns:
        (line and our columns as text, null where unknown; how many lines the file has).

    Raises:
        ArtifactError: The file does not exist.
        DataError: It is damaged, or holds none of the items.
    """
    kept, n_lines = [], 0
    key = next(theirs for theirs, ours in fields.items() if ours == ITEM_ID)
    for frame, n in json_frames(path, list(fields), rejects, Needed(key, needed)):
        n_lines += n
        kept.append(frame.rename(fields))
    items = pl.concat(kept) if kept else text_frame({LINE: [], **{name: [] for name in fields.values()}})
    if not needed.is_empty():  # where no review could be used, the rejects say more
        require_some(path, items, "reviewed items")
    counts |= {"script_titles": 0, "tagged_titles": 0}
    titles = [_without_code(title, counts) for title in items[TITLE]]
    counts["tagged_categories"] = sum(_holds_code(text) for text in items[CATEGORY])
    paths = [category_path(text) for text in items[CATEGORY]]
    return items.with_columns(pl.Series(TITLE, titles, dtype=pl.String), pl.Series(CATEGORY, paths, dtype=pl.String)), n_lines


def _holds_code(text: str | None) -> bool:
    return bool(text and (_SCRIPT.search(text) or _TAG.search(text)))


def _without_code(title: str | None, counts: dict[str, int]) -> str | None:
    if not title:
        return None
    if _SCRIPT.search(title):
        counts["script_titles"] += 1
        return None
    plain, n_tags = _TAG.subn(" ", title)
    counts["tagged_titles"] += n_tags > 0
    return plain


def category_path(text: str | None) -> str | None:
    """Turn an item's categories into one line, as `Toys & Games Puzzles`.

    Args:
        text: JSON: a list of words, or a list of such lists of which the first counts; other text stands for itself.

    Returns:
        The words that are plain text, from the most general on; None where there are none.
    """
    if text is None:
        return None
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    words = value if isinstance(value, list) else [value]
    plain = [word.strip() for word in words if isinstance(word, str) and not _holds_code(word)]
    return " ".join(word for word in plain if word) or None
