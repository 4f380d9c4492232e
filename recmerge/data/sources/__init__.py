"""Where data comes from: one reader per source, each returning the same raw tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recmerge.data.sources.amazon2014 import read_amazon2014
from recmerge.data.sources.amazon2018 import read_amazon2018
from recmerge.data.sources.amazon2023 import read_amazon2023
from recmerge.data.sources.movielens import read_movielens
from recmerge.data.sources.published_testdata import read_published_testdata
from recmerge.data.sources.raw import RawTables
from recmerge.data.sources.table import read_table


@dataclass(frozen=True)
class Source:
    """A kind of raw data.

    Args:
        files: The roles of the files it reads, settings of the same names.
        read: From (files by role, column mapping) to raw tables.
        asks: Whether it fixes the questions itself, see `Asked`; then there is nothing to filter, split, draw or train on.
        usual: Where a file lies in the workspace when it is not named, by role; may hold `{domain}`.
    """

    files: tuple[str, ...]
    read: Callable[[Mapping[str, Path], Mapping[str, str | None]], RawTables]
    asks: bool = False
    usual: Mapping[str, str] = field(default_factory=dict)


SOURCES: dict[str, Source] = {
    "table": Source(("interactions", "items"), read_table),
    "amazon2014": Source(("reviews", "meta"), read_amazon2014),
    "amazon2018": Source(("reviews", "meta"), read_amazon2018),
    "amazon2023": Source(("reviews", "meta"), read_amazon2023),
    "movielens": Source(("archive",), read_movielens),
    "published_testdata": Source(("testdata",), read_published_testdata, asks=True, usual={"testdata": "testdata/{domain}.jsonl"}),
}

__all__ = ["SOURCES", "RawTables", "Source"]
