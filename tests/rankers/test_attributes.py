"""Brand and category by hand."""

import math
from dataclasses import replace

import polars as pl
import pytest

from recmerge.data.dataset import Example
from recmerge.rankers import new_ranker
from tests.rankers.test_contract import checkerboard


def shelf(rows: list[tuple[str, str, str]]):
    columns = {"item_id": [r[0] for r in rows], "title": ["same"] * len(rows), "brand": [r[1] for r in rows], "category": [r[2] for r in rows]}
    return replace(checkerboard(), items=pl.DataFrame(columns))


def test_a_shared_beginning_and_a_shared_brand_by_hand() -> None:
    ranker = new_ranker("attributes")
    ranker.fit(shelf([("a", "Acme", "Toys Dolls"), ("b", "acme", ""), ("c", "", "Toys Cars"), ("d", "Other", "Dolls Toys")]))
    # terms of a: its brand (2 of 4 items), Toys (2), Toys Dolls (1); idf ln(5/3) + 1 and ln(5/2) + 1
    often, once = math.log(5 / 3) + 1, math.log(5 / 2) + 1
    length = math.sqrt(2 * often**2 + once**2)
    (scores,) = ranker.score([Example("sports", "u", ("a",), "b", ("a", "b", "c", "d"))])
    assert scores.tolist() == pytest.approx([1, often / length, often**2 / length / math.sqrt(often**2 + once**2), 0])  # order within a category counts


def test_a_catalogue_without_attributes_ties() -> None:
    ranker = new_ranker("attributes")
    ranker.fit(shelf([("a", "", ""), ("b", "", ""), ("c", "", "")]))
    assert ranker.score([Example("sports", "u", ("a",), "b", ("a", "b", "c"))]).tolist() == [[0, 0, 0]]
