"""What every source returns, and what it does with lines it cannot use."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import polars as pl

from recmerge.data.prompts import Wording
from recmerge.errors import DataError
from recmerge.names import BRAND, CATEGORY, ITEM_ID, TIMESTAMP, TITLE, USER_ID

LINE = "line"
_DAY = 86_400
_SHOWN = 200  # characters of a rejected line that are kept


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that cannot be used.

    Args:
        file: The file's name.
        line: 1-based.
        reason: One word.
        text: The line, shortened.
    """

    file: str
    line: int
    reason: str
    text: str


@dataclass
class Rejects:
    """The lines of one source that cannot be used."""

    found: list[Reject] = field(default_factory=list)

    def add(self, file: str, line: int, reason: str, text: str) -> None:
        """Put one line aside."""
        self.found.append(Reject(file, line, reason, text[:_SHOWN]))

    def by_reason(self) -> dict[str, int]:
        """Return how many lines each reason put aside."""
        return dict(sorted(Counter(r.reason for r in self.found).items()))

    def check(self, n_lines: int, max_bad: float, kept: Path | None = None) -> None:
        """Refuse a source with too many lines that cannot be used.

        Args:
            n_lines: Lines read, the rejected ones among them.
            max_bad: The share of them that may be bad, 0 to 1.
            kept: The file that all of them were written to, named in the error.

        Raises:
            DataError: More are bad.
        """
        if len(self.found) > max_bad * n_lines:
            first = self.found[0]
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.by_reason().items())
            where = f"first: {first.file}:{first.line} {first.text}" + (f"; all in {kept}" if kept else "")
            raise DataError(
                f"{len(self.found)} of {n_lines} lines cannot be used ({reasons}), at most {max_bad:.3%} may be; {where}",
                fix=_advice(first.reason),
            )

    def write(self, path: Path) -> None:
        """Write one JSON line per rejected line."""
        lines = [json.dumps(asdict(r), ensure_ascii=True) for r in self.found]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Asked:
    """Questions that the source itself asks: they are taken as they are, and nothing is drawn.

    Args:
        questions: user_id, target, candidates (C item ids, the target among them); one per user, whose last interaction is the target.
        wording: How the source words its prompts.
    """

    questions: pl.DataFrame
    wording: Wording


@dataclass(frozen=True)
class RawTables:
    """A source's content, not yet filtered.

    Args:
        interactions: user_id, item_id, timestamp (seconds, null where unknown), in file order.
        items: item_id, title, brand, category; null where unknown; one row per item, by item_id.
        rejects: Lines put aside.
        n_lines: Lines read, the rejected ones among them.
        counts: What was merged or mended without being wrong, by name, e.g. `repeated_items`, the lines of items that stood before.
        asked: The questions, where the source fixes them; None: they are to be made of the interactions.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    rejects: Rejects
    n_lines: int
    counts: Mapping[str, int] = field(default_factory=dict)
    asked: Asked | None = None


def checked_interactions(file: str, frame: pl.DataFrame, rejects: Rejects, now: float | None = None, *, milliseconds: bool = False) -> pl.DataFrame:
    """Put aside the interactions that cannot be used.

    Args:
        file: The file's name, for the rejects.
        frame: line, user_id, item_id, timestamp; all but the line are text, the timestamp may be Int64.
        rejects: Receives the bad lines.
        now: Seconds since 1970; later times are bad. The clock's by default.
        milliseconds: Whether the file's times are in milliseconds; one that is no later than `now` taken as seconds is in seconds, so bad.

    Returns:
        user_id, item_id, timestamp (Int64, seconds, null where blank), in the same order.
    """
    latest = int((time.time() if now is None else now) + _DAY)
    text, ticks, seconds = pl.col(TIMESTAMP), pl.col("ticks"), pl.col("seconds")
    texts = [c for c in (USER_ID, ITEM_ID, TIMESTAMP) if frame.schema[c] == pl.String]
    typed = frame.with_columns(_blank_to_null(c) for c in texts).with_columns(text.cast(pl.Int64, strict=False).alias("ticks"))
    if typed["ticks"].null_count() > typed[TIMESTAMP].null_count():
        typed = typed.with_columns(ticks.fill_null(text.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False)))
    typed = typed.with_columns((ticks // 1000 if milliseconds else ticks).alias("seconds"))
    faults = {  # the first one counts
        "no_user": pl.col(USER_ID).is_null(),
        "no_item": pl.col(ITEM_ID).is_null(),
        "timestamp_not_a_number": text.is_not_null() & ticks.is_null(),
        "timestamp_negative": ticks < 0,
        "timestamp_not_milliseconds" if milliseconds else "timestamp_not_seconds": (seconds > 20 * latest) | (ticks <= latest if milliseconds else False),
        "timestamp_in_future": seconds > latest,
    }
    is_bad = typed.select(pl.any_horizontal(*faults.values()).fill_null(False)).to_series()
    reason = pl.coalesce(pl.when(fault).then(pl.lit(why)) for why, fault in faults.items())
    for line, user, item, stamp, why in typed.filter(is_bad).select(LINE, USER_ID, ITEM_ID, TIMESTAMP, reason).iter_rows():
        rejects.add(file, line, why, f"user {user} item {item} timestamp {stamp}")
    return typed.filter(~is_bad).select(USER_ID, ITEM_ID, seconds.alias(TIMESTAMP))


def checked_items(file: str, frame: pl.DataFrame, rejects: Rejects, counts: dict[str, int]) -> pl.DataFrame:
    """Make one row per item.

    Args:
        file: The file's name, for the rejects.
        frame: line, item_id, title, brand, category; all but the line are text or null.
        rejects: Receives the lines without an item id.
        counts: Receives `repeated_items`, the lines of items that have another line.

    Returns:
        item_id, title, brand, category, by item_id. Of an item that stands twice the first by title is taken, whatever
        the order of the file.
    """
    clean = frame.with_columns(_blank_to_null(ITEM_ID))
    for (line,) in clean.filter(pl.col(ITEM_ID).is_null()).select(LINE).iter_rows():
        rejects.add(file, line, "no_item", "")
    columns = (ITEM_ID, TITLE, BRAND, CATEGORY)
    known = clean.filter(pl.col(ITEM_ID).is_not_null()).select(columns)
    items = known.sort(columns, nulls_last=True).unique(ITEM_ID, keep="first", maintain_order=True)
    counts["repeated_items"] = known.height - items.height
    return items


def require_some(file: Path, frame: pl.DataFrame, what: str) -> None:
    """Refuse a file that holds nothing.

    Args:
        file: The file.
        frame: What was read of it.
        what: What it should hold.

    Raises:
        DataError: The frame is empty.
    """
    if frame.is_empty():
        raise DataError(f"{file} holds no {what}", fix="is this the right file?")


def valid_text(texts: Iterable[str | None]) -> list[str | None]:
    """Join surrogate pairs and replace lone surrogates, which no UTF-8 file can hold, by U+FFFD."""
    return [None if t is None else t.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for t in texts]


def _blank_to_null(column: str) -> pl.Expr:
    stripped = pl.col(column).str.strip_chars()
    return pl.when(stripped.str.len_bytes() > 0).then(stripped).alias(column)


def _advice(reason: str) -> str:
    if reason == "timestamp_not_seconds":
        return "give seconds since 1970, not milliseconds"
    if reason == "timestamp_not_milliseconds":
        return "give milliseconds since 1970, as the official files do"
    if reason == "timestamp_not_a_number":
        return "give seconds since 1970 as a number, or leave unknown times blank"
    return "mend the file, or allow more with --set max_bad=0.01"
